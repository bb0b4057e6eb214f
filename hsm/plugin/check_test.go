package plugin

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/plugin/hsmv1"
)

var asked = hsm.KeyIDFromBytes([]byte("0123456789abcdef"))

func goodInfo() *hsmv1.DescribeResponse {
	return &hsmv1.DescribeResponse{Label: "payments", Role: string(hsm.CryptoOfficer), Fips: new(true),
		WrappingAlgorithms: []string{string(hsm.OAEPSHA1)}, MaxSessions: 30,
		Policies: []*hsmv1.Policy{{Number: 5, Name: "secret key wrapping", Value: 1}, {Number: 43, Name: "non-FIPS algorithms"}}}
}

func goodKey() *hsmv1.Key {
	return &hsmv1.Key{Id: asked.Bytes(), Label: "payments", Type: "AES", Bits: 256, Sensitive: true, Extractable: true,
		Vendor: map[string]string{"OUID": "00"}}
}

func TestGoodAnswersPass(t *testing.T) {
	info, err := infoFromProto(goodInfo())
	if err != nil || info.FIPS == nil || !*info.FIPS || info.MaxSessions != 30 {
		t.Errorf("%+v, %v", info, err)
	}
	if want := []hsm.Policy{{Number: 5, Name: "secret key wrapping", Value: 1}, {Number: 43, Name: "non-FIPS algorithms"}}; !slices.Equal(info.Policies, want) {
		t.Errorf("policies %+v, want %+v", info.Policies, want)
	}
	if _, err := generatedKey(goodKey(), asked); err != nil {
		t.Error(err)
	}
	sealed := goodKey()
	sealed.Extractable = false
	if _, err := sealedKey(sealed, asked); err != nil {
		t.Error(err)
	}
}

func TestWrongAnswers(t *testing.T) {
	long, control, latin1 := strings.Repeat("x", maxString+1), "a\x1b[2J", "\xe9"
	info := func(spoil func(*hsmv1.DescribeResponse)) error {
		m := goodInfo()
		spoil(m)
		_, err := infoFromProto(m)
		return err
	}
	key := func(spoil func(*hsmv1.Key)) error {
		m := goodKey()
		spoil(m)
		_, err := generatedKey(m, asked)
		return err
	}
	sealed := func(spoil func(*hsmv1.Key)) error {
		m := goodKey()
		m.Extractable = false
		spoil(m)
		_, err := sealedKey(m, asked)
		return err
	}
	token := func(m *hsmv1.TokenID) error { _, err := tokenFromProto(m); return err }
	value := func(m *hsmv1.CheckValueResponse) error { _, err := checkValueFromProto(m, asked); return err }
	wrapped := func(m *hsmv1.WrapResponse) error {
		_, err := wrappedFromProto(m, hsm.WrapRequest{Key: asked, Algorithm: hsm.OAEPSHA256}, 256)
		return err
	}
	id, sha256 := asked.Bytes(), string(hsm.OAEPSHA256)
	for _, test := range []struct {
		field string
		err   error
	}{
		{"model", info(func(m *hsmv1.DescribeResponse) { m.Model = long })},
		{"serial", info(func(m *hsmv1.DescribeResponse) { m.Serial = control })},
		{"label", info(func(m *hsmv1.DescribeResponse) { m.Label = latin1 })},
		{"role", info(func(m *hsmv1.DescribeResponse) { m.Role = "" })},
		{"wrapping_algorithms", info(func(m *hsmv1.DescribeResponse) { m.WrappingAlgorithms[0] = "ROT13" })},
		{"wrapping_algorithms", info(func(m *hsmv1.DescribeResponse) {
			m.WrappingAlgorithms = append(m.WrappingAlgorithms, m.WrappingAlgorithms[0])
		})},
		{"max_sessions", info(func(m *hsmv1.DescribeResponse) { m.MaxSessions = 1 << 31 })},

		{"policies", info(func(m *hsmv1.DescribeResponse) { m.Policies[0].Name = "" })},
		{"policies", info(func(m *hsmv1.DescribeResponse) { m.Policies[0].Name = control })},
		{"policies", info(func(m *hsmv1.DescribeResponse) { m.Policies[1].Number = 5 })},
		{"policies", info(func(m *hsmv1.DescribeResponse) { m.Policies = make([]*hsmv1.Policy, maxPolicies+1) })},

		{"token.serial", token(nil)},
		{"token.serial", token(&hsmv1.TokenID{Serial: long})},
		{"token.serial", token(&hsmv1.TokenID{Serial: "1\x002"})},
		{"token.manufacturer", token(&hsmv1.TokenID{Manufacturer: control, Serial: "1"})},
		{"token.model", token(&hsmv1.TokenID{Model: latin1, Serial: "1"})},

		{"key", func() error { _, err := keyFromProto(nil, asked); return err }()},
		{"id", key(func(m *hsmv1.Key) { m.Id[0]++ })},
		{"id", key(func(m *hsmv1.Key) { m.Id = nil })},
		{"id", func() error { _, err := listedKey(&hsmv1.Key{Id: make([]byte, 65)}); return err }()},
		{"label", key(func(m *hsmv1.Key) { m.Label = control })},
		{"type", key(func(m *hsmv1.Key) { m.Type = "aes" })},
		{"bits", key(func(m *hsmv1.Key) { m.Bits = 1 << 31 })},
		{"key", key(func(m *hsmv1.Key) { m.Bits = 128 })},
		{"key", key(func(m *hsmv1.Key) { m.Extractable = false })},
		{"key", key(func(m *hsmv1.Key) { m.Sensitive = false })},
		{"vendor", key(func(m *hsmv1.Key) { m.Vendor["a"] = long })},
		{"vendor", key(func(m *hsmv1.Key) { m.Vendor[long] = "a" })},
		{"vendor", key(func(m *hsmv1.Key) {
			for i := range maxVendor {
				m.Vendor[strings.Repeat("v", i+1)] = ""
			}
		})},

		{"key", func() error { _, err := sealedKey(nil, asked); return err }()},
		{"key", sealed(func(m *hsmv1.Key) { m.Extractable = true })},
		{"id", sealed(func(m *hsmv1.Key) { m.Id[0]++ })},
		{"label", sealed(func(m *hsmv1.Key) { m.Label = control })},

		{"id", value(&hsmv1.CheckValueResponse{Value: []byte{1, 2, 3}})},
		{"value", value(&hsmv1.CheckValueResponse{Id: id, Value: []byte{1, 2, 3, 4}})},
		{"id", wrapped(&hsmv1.WrapResponse{Id: []byte{1}, Algorithm: sha256, Wrapped: make([]byte, 256)})},
		{"algorithm", wrapped(&hsmv1.WrapResponse{Id: id, Algorithm: string(hsm.OAEPSHA1), Wrapped: make([]byte, 256)})},
		{"wrapped", wrapped(&hsmv1.WrapResponse{Id: id, Algorithm: sha256, Wrapped: make([]byte, 512)})},
	} {
		if !errors.Is(test.err, hsm.Corrupt) || !strings.Contains(test.err.Error(), "wrong "+test.field+":") {
			t.Errorf("got %v, want Corrupt naming %s", test.err, test.field)
		}
	}
}

func TestEndlessList(t *testing.T) {
	batch := &hsmv1.KeysResponse{Keys: make([]*hsmv1.Key, 1000)}
	for i := range batch.Keys {
		batch.Keys[i] = goodKey()
	}
	_, err := collect(func() (*hsmv1.KeysResponse, error) { return batch, nil })
	wantReason(t, err, hsm.Corrupt)
}

// The longest keys that the contract allows fit into a message.
func TestKeysPerMessage(t *testing.T) {
	key := goodKey()
	key.Id, key.Label = make([]byte, 64), strings.Repeat("x", maxString)
	key.Vendor = make(map[string]string)
	for i := range maxVendor {
		key.Vendor[strings.Repeat("v", maxVendorName-i)] = key.Label
	}
	if _, err := listedKey(key); err != nil {
		t.Fatal(err)
	}
	m := new(hsmv1.KeysResponse)
	for range keysPerMessage {
		m.Keys = append(m.Keys, key)
	}
	if size := proto.Size(m); size > maxMessage {
		t.Errorf("%d bytes", size)
	}
}

func TestUnknownReason(t *testing.T) {
	e := fromErrorInfo(&errdetails.ErrorInfo{Reason: "MELTDOWN\n", Metadata: map[string]string{
		metadataCode: strings.Repeat("C", 1000), metadataDetail: "core\x1b[2J",
	}})
	if e.Reason != hsm.Internal || len(e.Code) != maxCode || e.Detail != "core?[2J (unknown reason MELTDOWN?)" {
		t.Errorf("got %#v", e)
	}
}

// Whatever bytes a plugin answers with, what passes is within the limits.
func FuzzAnswers(f *testing.F) {
	for _, m := range []proto.Message{
		goodInfo(), goodKey(), &hsmv1.TokenID{Manufacturer: "SafeNet", Serial: "1"}, &hsmv1.KeysResponse{Keys: []*hsmv1.Key{goodKey(), nil}},
		&hsmv1.WrapResponse{Id: asked.Bytes(), Wrapped: make([]byte, 256)}, &hsmv1.CheckValueResponse{Id: asked.Bytes(), Value: []byte{1, 2, 3}},
		&errdetails.ErrorInfo{Reason: "BUSY", Domain: errorDomain, Metadata: map[string]string{metadataCode: "CKR_X", metadataDetail: "x"}},
	} {
		encoded, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded)
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		var described hsmv1.DescribeResponse
		if proto.Unmarshal(encoded, &described) == nil {
			if info, err := infoFromProto(&described); err == nil && (len(info.Label) > maxString || len(info.WrappingAlgorithms) > 3) {
				t.Errorf("accepted %+v", info)
			}
		}
		var named hsmv1.TokenID
		if proto.Unmarshal(encoded, &named) == nil {
			token, err := tokenFromProto(&named)
			if err == nil && (token.Serial == "" || strings.ContainsRune(token.Manufacturer+token.Serial, 0)) {
				t.Errorf("accepted %+v", token)
			}
		}
		var listed hsmv1.KeysResponse
		if proto.Unmarshal(encoded, &listed) == nil {
			answers := []*hsmv1.KeysResponse{&listed}
			_, _ = collect(func() (*hsmv1.KeysResponse, error) {
				if len(answers) == 0 {
					return nil, io.EOF
				}
				m := answers[0]
				answers = nil
				return m, nil
			})
		}
		var key hsmv1.Key
		if proto.Unmarshal(encoded, &key) == nil {
			if k, err := keyFromProto(&key, asked); err == nil && (k.ID != asked || checkString("", k.Label, maxString) != nil) {
				t.Errorf("accepted %+v", k)
			}
		}
		var wrapped hsmv1.WrapResponse
		if proto.Unmarshal(encoded, &wrapped) == nil {
			if b, err := wrappedFromProto(&wrapped, hsm.WrapRequest{Key: asked}, 256); err == nil && len(b) != 256 {
				t.Errorf("accepted %d bytes", len(b))
			}
		}
		var info errdetails.ErrorInfo
		if proto.Unmarshal(encoded, &info) == nil {
			if e := fromErrorInfo(&info); len(e.Code) > maxCode || checkString("", e.Detail, 2*maxDetail) != nil {
				t.Errorf("accepted %#v", e)
			}
		}
	})
}

func FuzzHandshake(f *testing.F) {
	for _, line := range []string{
		"1|1|unix|/run/x/plugin1|grpc|certificate", "1|1|unix|/run/x/../y|grpc|c", "1|7|unix|/run/x/p|grpc|c", "2|1|unix|/run/x/p|grpc|c",
		"1|1|tcp|127.0.0.1:1|grpc|c", "1|1|unix|/run/x/p|netrpc|c", "1|1|unix|/run/x/p|grpc|", "hello", "",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		err := checkHandshake(line, "/run/x")
		if err == nil && !strings.Contains(line, "|/run/x") && !strings.Contains(line, "|/") {
			t.Errorf("accepted %q", line)
		}
		if err != nil && checkString("", err.Error(), 2*maxDetail) != nil {
			t.Errorf("error is not fit to show: %q", err)
		}
	})
}

func TestHandshake(t *testing.T) {
	for line, ok := range map[string]bool{
		"1|1|unix|/run/x/plugin1|grpc|certificate":      true,
		"1|1|unix|/run/x/plugin1|grpc|certificate|true": true,
		"1|1|unix|/run/x/../y|grpc|c":                   false,
		"1|1|unix|/run/xy|grpc|c":                       false,
		"1|1|tcp|127.0.0.1:1|grpc|c":                    false,
		"1|1|unix|/run/x/p|netrpc|c":                    false,
		"1|1|unix|/run/x/p|grpc|":                       false,
		"1|2|unix|/run/x/p|grpc|c":                      false,
		"2|1|unix|/run/x/p|grpc|c":                      false,
		"1|1|unix|/run/x/p":                             false,
	} {
		if err := checkHandshake(line, "/run/x"); (err == nil) != ok {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func FuzzLogLine(f *testing.F) {
	for _, line := range []string{
		`{"@level":"error","@message":"device complains","@timestamp":"2026-01-01T00:00:00.000000Z","slot":3,"nested":{"a":[1]}}`,
		`{"@message":5}`, `{"@level":{},"@message":"m"}`, `[]`, `null`, "panic: runtime error", "\x1b[2J\xff", "",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		line := parseLogLine(raw)
		if checkString("", line.message, maxString) != nil || len(line.fields) > maxLogFields {
			t.Errorf("accepted %q", line.message)
		}
		for _, field := range line.fields {
			if checkString("", field.Key, maxCode) != nil || checkString("", field.Value.String(), maxDetail) != nil {
				t.Errorf("accepted field %v", field)
			}
		}
	})
}

func TestLongLogLines(t *testing.T) {
	var seen []logLine
	input := strings.Repeat("x", 3*maxLogLine) + "\n" + `{"@level":"warn","@message":"next"}` + "\nend"
	relay(strings.NewReader(input), slog.New(slog.DiscardHandler), func(line logLine) { seen = append(seen, line) })
	if len(seen) != 3 || seen[1].message != "next" || seen[2].String() != "plugin wrote to standard error line=end" {
		t.Errorf("seen %v", seen)
	}
}

func TestSettings(t *testing.T) {
	read := func(given map[string]string) (string, int, error) {
		s := ReadSettings(given)
		label, sessions := s.String("label"), s.Int("sessions", 1, 9)
		return label, sessions, s.Err()
	}
	label, sessions, err := read(map[string]string{"label": "x", "sessions": "9"})
	if label != "x" || sessions != 9 || err != nil {
		t.Errorf("%q %d %v", label, sessions, err)
	}
	if _, sessions, err := read(nil); sessions != 0 || err != nil {
		t.Errorf("%d %v", sessions, err)
	}
	for _, given := range []map[string]string{{"sessions": "0"}, {"sessions": "ten"}, {"sessions": "10"}, {"pin": "1234"}} {
		_, _, err := read(given)
		wantReason(t, err, hsm.Misconfigured)
		if strings.Contains(err.Error(), "1234") {
			t.Error("the value of an unknown setting is shown")
		}
	}
}
