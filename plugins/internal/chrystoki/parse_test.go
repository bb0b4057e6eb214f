package chrystoki

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const sample = `Chrystoki2 = {
   LibUNIX = /usr/safenet/lunaclient/lib/libCryptoki2.so;
   LibUNIX64 = /usr/safenet/lunaclient/lib/libCryptoki2_64.so;
}

# written by hand
LunaSA Client = {
   ServerName00=192.0.2.7;
   ServerHtl00 = ;
   ReceiveTimeout = 20000;
}
VirtualToken = {
   VirtualToken01Label = second;
   VirtualToken01SN = 1888800003;
   VirtualToken00Label = payments;
   VirtualToken00SN = 1888800001;
   VirtualToken00Members = 888800001, 888800002;
   VirtualTokenActiveRecovery = activeEnhanced;
}
Secure Trusted Channel = {
}
`

func TestParse(t *testing.T) {
	for name, text := range map[string]string{"LF": sample, "CRLF": strings.ReplaceAll(sample, "\n", "\r\n"), "no last newline": strings.TrimSuffix(sample, "\n")} {
		t.Run(name, func(t *testing.T) {
			c, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []struct{ section, key, value string }{
				{"Chrystoki2", "LibUNIX64", "/usr/safenet/lunaclient/lib/libCryptoki2_64.so"},
				{"LunaSA Client", "ServerName00", "192.0.2.7"},
				{"LunaSA Client", "ServerHtl00", ""},
				{"LunaSA Client", "absent", ""},
				{"absent", "LibUNIX64", ""},
			} {
				if got := c.Value(want.section, want.key); got != want.value {
					t.Errorf("%s %s is %q, want %q", want.section, want.key, got, want.value)
				}
			}
			if !c.Has("Secure Trusted Channel") || c.Has("REST") {
				t.Error("sections are wrong")
			}
			if got := c.Library(); got != "/usr/safenet/lunaclient/lib/libCryptoki2_64.so" {
				t.Errorf("library %q", got)
			}
			want := []HAGroup{{"payments", "1888800001", []string{"888800001", "888800002"}}, {"second", "1888800003", nil}}
			if got := c.HAGroups(); !reflect.DeepEqual(got, want) {
				t.Errorf("groups %+v, want %+v", got, want)
			}
		})
	}
}

func TestSyntaxErrors(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"no semicolon", "A = {\n B = c\n}\n", `line 2: the value of "B" does not end with a semicolon`},
		{"TAB", "A = {\n\tB = c;\n}\n", "line 2: it contains a TAB"},
		{"not an assignment", "A = {\nB\n}\n", "line 2: it is neither"},
		{"no name", "A = {\n= c;\n}\n", "line 2: it is neither"},
		{"key outside", "B = c;\n", `line 1: "B" stands outside of a section`},
		{"stray brace", "}\n", "line 1: } closes no section"},
		{"nested", "A = {\nB = {\n}\n}\n", `line 2: section "B" begins before section "A", of line 1, is closed`},
		{"open at the end", "A = {\nB = c;\n", `section "A", begun in line 1, has no closing }`},
		{"section twice", "A = {\n}\nA = {\n}\n", `line 3: section "A" is there twice`},
		{"key twice", "A = {\nB = c;\nB = d;\n}\n", `line 3: "B" is there twice in section "A"`},
		{"control character", "A = {\nB = \x1b[2J;\n}\n", "line 2: it is not printable text"},
		{"not UTF-8", "A = {\nB = \xff;\n}\n", "line 2: it is not printable text"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Parse(test.text)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// A secret whose line is wrong does not come out in the error.
func TestErrorsShowNoValues(t *testing.T) {
	for _, text := range []string{
		"AuthTokenClientSecret = hunter2;\n",
		"REST = {\nAuthTokenClientSecret = hunter2\n}\n",
		"REST = {\nAuthTokenClientSecret hunter2;\n}\n",
		"REST = {\nAuthTokenClientSecret = a;\nAuthTokenClientSecret = hunter2;\n}\n",
	} {
		if _, err := Parse(text); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(dir); !os.IsNotExist(err) {
		t.Errorf("absent: %v", err)
	}
	write("A = {\nB\n}\n")
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), path+", line 2: ") {
		t.Errorf("broken: %v", err)
	}
	write("#" + strings.Repeat("x", 1<<20))
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("huge: %v", err)
	}
	write(sample)
	if c, err := Load(dir); err != nil || !c.Has("Chrystoki2") {
		t.Errorf("good: %v", err)
	}
}

func TestDir(t *testing.T) {
	t.Setenv(DirVariable, "")
	if got := Dir(); got != "/etc" {
		t.Errorf("unset: %s", got)
	}
	t.Setenv(DirVariable, "/opt/dpod")
	if got := Dir(); got != "/opt/dpod" {
		t.Errorf("set: %s", got)
	}
}

// What is accepted says the same when it is written out and read again.
func FuzzParse(f *testing.F) {
	f.Add(sample)
	f.Add("A = {\nB = c\n}\n")
	f.Add("A = {\n")
	f.Add("}\n= {\n# \n\t")
	f.Add("VirtualToken = {\n Label = ;\n Members = ,,;\n}")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		c.HAGroups()
		var b strings.Builder
		for section, keys := range c.sections {
			fmt.Fprintf(&b, "%s = {\n", section)
			for key, value := range keys {
				fmt.Fprintf(&b, " %s = %s;\n", key, value)
			}
			b.WriteString("}\n")
		}
		again, err := Parse(b.String())
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Errorf("%q is written as %q: %v", text, b.String(), err)
		}
	})
}
