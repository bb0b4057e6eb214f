package pkcs11

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/module"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
	applications "github.com/kmsbroker/kmsbroker/test/application/library"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// childVariable makes this program one that runs the table and nothing else. A library
// is initialised once for a whole process, and what is wrong with it may end that.
const childVariable = "KMSBROKER_PKCS11_TABLE"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		applications.Main(m, recoveryTasks()) // does not return
	}
	if err := child(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// job is what a child is told.
type job struct {
	Library, Label, PIN, SOPIN string
	RSA, EC                    []byte // private keys, PKCS #8
	// Deadly are steps that end the process and are left out.
	Deadly []string
}

// child runs the table and writes each record as a line of JSON, at once: what comes
// after it may be the end of the process.
func child(in io.Reader, out io.Writer) error {
	var j job
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		return err
	}
	keys, err := parseKeys(j)
	if err != nil {
		return err
	}
	library, err := module.Open(j.Library)
	if err != nil {
		return err
	}
	w := json.NewEncoder(out)
	s := &script{
		module: library, label: j.Label, pin: []byte(j.PIN), soPIN: []byte(j.SOPIN), keys: keys, deadly: j.Deadly,
		steps: map[string]bool{}, write: func(r record) error { return w.Encode(r) },
	}
	return s.run()
}

// deadly is the result of a step that ends the process.
const deadly = "the process ends"

// runTable runs the table of a way to the token in a process of its own, and once more
// without it when a step ends the process.
func runTable(t *testing.T, target stage.PKCS11, f *softhsmtest.Fixture, keys job) map[string]string {
	t.Helper()
	keys.Library, keys.Label, keys.PIN, keys.SOPIN = target.Module, f.Label, f.PIN, f.SOPIN
	for {
		results, stderr, err := runChild(t, target, keys)
		if err == nil {
			for _, step := range keys.Deadly {
				results[step] = deadly
			}
			return results
		}
		const most = 10
		begun := ""
		for step, result := range results {
			if result == "" {
				begun = step
			}
		}
		if begun == "" || len(keys.Deadly) == most {
			t.Fatalf("%s: %v\n%s", target.Name, err, stderr)
		}
		keys.Deadly = append(keys.Deadly, begun)
	}
}

// runChild runs the table once. A step that has begun and not ended has no result.
func runChild(t *testing.T, target stage.PKCS11, j job) (results map[string]string, errors []byte, err error) {
	t.Helper()
	in, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(target.Environ(), childVariable+"=1", "GOTRACEBACK=none")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &stdout, &stderr
	err = cmd.Run()
	results = map[string]string{}
	for lines := bufio.NewScanner(&stdout); lines.Scan(); {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%v: %s", err, lines.Bytes())
		}
		results[r.Step] = r.Result
	}
	return results, stderr.Bytes(), err
}

// testKeys are the same for all ways, so that what they sign and encrypt is.
type testKeys struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
}

// newKeys makes the keys of a job.
func newKeys(t *testing.T) job {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var j job
	if j.RSA, err = x509.MarshalPKCS8PrivateKey(rsaKey); err != nil {
		t.Fatal(err)
	}
	if j.EC, err = x509.MarshalPKCS8PrivateKey(ecKey); err != nil {
		t.Fatal(err)
	}
	return j
}

func parseKeys(j job) (*testKeys, error) {
	rsaKey, err := x509.ParsePKCS8PrivateKey(j.RSA)
	if err != nil {
		return nil, err
	}
	ecKey, err := x509.ParsePKCS8PrivateKey(j.EC)
	if err != nil {
		return nil, err
	}
	return &testKeys{rsaKey.(*rsa.PrivateKey), ecKey.(*ecdsa.PrivateKey)}, nil
}

// findSlot finds the token, whose slot has another number each time.
func (s *script) findSlot() error {
	call := c(cryptoki.GetSlotList).room(64)
	call.Flag = true
	for _, slot := range s.quietly(call).List {
		info, ok := s.quietly(c(cryptoki.GetTokenInfo, slot)).Info.(*cryptoki.TokenInfo)
		if ok && trim(info.Label[:]) == s.label {
			s.slot = slot
			return nil
		}
	}
	return errors.New("there is no token " + s.label)
}
