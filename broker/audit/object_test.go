package audit

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestLabel(t *testing.T) {
	full := strings.Repeat("ü", maxLabel)
	for label, want := range map[string]string{
		"": "", "tls-web": "tls-web", full: full, full + "x": full + "…",
		strings.Repeat("\xff", maxLabel+1): strings.Repeat("\xff", maxLabel) + "…",
	} {
		if got := Label(label); got != want {
			t.Errorf("%q is %q", label, got)
		}
	}
}

// TestObjectDetails: a label may have any bytes, and a record none that do harm.
func TestObjectDetails(t *testing.T) {
	if got := ObjectDetails("", nil, ""); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
	hostile := "a\"\\\n\x1b[2J\x00\u202e\xff" + strings.Repeat("\U0010ffff", 500)
	event := Event{
		Action: PKCS11 + "sign", Outcome: Done, Backend: "luna", Application: true,
		Details: ObjectDetails(hostile, []byte{0, 0xab}, "private-key"),
	}
	line, err := encode(event)
	if err != nil {
		t.Fatal(err)
	}
	text := string(line)
	if !utf8.Valid(line) || strings.ContainsAny(text, "\n\x1b\x00\u202e") || len(line) > 1024 {
		t.Errorf("%d bytes: %q", len(line), text)
	}
	for _, want := range []string{`"action":"pkcs11.sign"`, `"backend":"luna"`, `"class":"private-key"`, `"label":"a\"\\`, `"object_id":"00ab"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in %s", want, text)
		}
	}
}
