package scenario

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// emulatorProcess is `kmsbrokerctl emulator` as a process of its own.
type emulatorProcess struct {
	cmd  *exec.Cmd
	host string
	log  *strings.Builder
}

// startProcess starts the built emulator on a state directory.
func startProcess(t *testing.T, state string) *emulatorProcess {
	t.Helper()
	bin := os.Getenv("KMSBROKER_BIN")
	if bin == "" {
		t.Fatal("KMSBROKER_BIN is not set: use `make test`")
	}
	p := &emulatorProcess{log: &strings.Builder{}}
	p.cmd = exec.CommandContext(t.Context(), filepath.Join(bin, "kmsbrokerctl"), "emulator", "--listen", "127.0.0.1:0",
		"--state", state, "--quota", "off", "--region", "cn-hangzhou", "--region", "cn-shanghai")
	p.cmd.Env = append(os.Environ(), "ALIBABA_CLOUD_ACCESS_KEY_ID="+root.ID, "ALIBABA_CLOUD_ACCESS_KEY_SECRET="+root.Secret)
	p.cmd.Stderr = p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	host, ok := strings.CutPrefix(strings.TrimSpace(line), "ready: http://")
	if !ok {
		p.kill()
		t.Fatalf("printed %q, %v; %s", line, err, p.log)
	}
	p.host = host
	return p
}

// kill ends the process as the kernel does, with no chance to tidy up.
func (p *emulatorProcess) kill() {
	_ = p.cmd.Process.Kill() // it may have ended by itself
	_ = p.cmd.Wait()         // "signal: killed"
}

// call makes a call that has to work, unless the process is gone.
func (p *emulatorProcess) call(who Identity, product, region, action string, params map[string]any) (map[string]any, error) {
	step := Step{Product: product, Region: region, Action: action}
	answer, err := sdkV1{p.host, http.MethodPost}.Call(who, step, params)
	if err == nil && answer.Status != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", action, answer.Status, answer.Code)
	}
	return answer.Body, err
}

// testimony is what was acknowledged to one worker. A field is empty until its
// call was answered.
type testimony struct {
	region, name string
	key, alias   string
	blob         string
	public       string // of an import
	token        string
	external     string
	imported     bool
	user         Identity
	permitted    bool
}

// work does one thing after the other until a call fails. acknowledged is called
// after each answer.
func (w *testimony) work(p *emulatorProcess, acknowledged func()) error {
	text := func(body map[string]any, path string) string {
		s, _ := at(body, path).(string)
		return s
	}
	for _, step := range []func() error{
		func() error {
			body, err := p.call(root, "Kms", w.region, "CreateKey", map[string]any{"Description": w.name})
			w.key = text(body, "KeyMetadata.KeyId")
			return err
		},
		func() error {
			_, err := p.call(root, "Kms", w.region, "CreateAlias", map[string]any{"KeyId": w.key, "AliasName": "alias/" + w.name})
			if err == nil {
				w.alias = "alias/" + w.name
			}
			return err
		},
		func() error {
			body, err := p.call(root, "Kms", w.region, "Encrypt", map[string]any{"KeyId": w.key, "Plaintext": plain(w.name)})
			w.blob = text(body, "CiphertextBlob")
			return err
		},
		func() error {
			_, err := p.call(root, "Ram", w.region, "CreateUser", map[string]any{"UserName": w.name})
			return err
		},
		func() error {
			body, err := p.call(root, "Ram", w.region, "CreateAccessKey", map[string]any{"UserName": w.name})
			w.user = Identity{ID: text(body, "AccessKey.AccessKeyId"), Secret: text(body, "AccessKey.AccessKeySecret")}
			return err
		},
		func() error {
			_, err := p.call(root, "Ram", w.region, "AttachPolicyToUser", map[string]any{"PolicyType": "System", "PolicyName": "AliyunKMSFullAccess", "UserName": w.name})
			w.permitted = err == nil
			return err
		},
		func() error {
			body, err := p.call(root, "Kms", w.region, "CreateKey", map[string]any{"Description": w.name, "Origin": "EXTERNAL"})
			w.external = text(body, "KeyMetadata.KeyId")
			return err
		},
		func() error {
			body, err := p.call(root, "Kms", w.region, "GetParametersForImport", map[string]any{"KeyId": w.external, "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"})
			w.token, w.public = text(body, "ImportToken"), text(body, "PublicKey")
			return err
		},
		func() error {
			err := w.importInto(p)
			w.imported = err == nil
			return err
		},
	} {
		if err := step(); err != nil {
			return err
		}
		acknowledged()
	}
	return nil
}

func (w *testimony) importInto(p *emulatorProcess) error {
	wrapped, err := wrap("RSAES_OAEP_SHA_256", w.public, strings.Repeat("5a", 32))
	if err != nil {
		return err
	}
	_, err = p.call(root, "Kms", w.region, "ImportKeyMaterial", map[string]any{"KeyId": w.external, "ImportToken": w.token, "EncryptedKeyMaterial": wrapped})
	return err
}

func plain(name string) string {
	return base64.StdEncoding.EncodeToString([]byte("plaintext of " + name))
}

// check finds all that was acknowledged.
func (w *testimony) check(p *emulatorProcess) error {
	who := root
	if w.permitted {
		who = w.user
	} else if w.user.ID != "" {
		if _, err := p.call(w.user, "Sts", w.region, "GetCallerIdentity", nil); err != nil {
			return err
		}
	}
	if w.key != "" {
		body, err := p.call(who, "Kms", w.region, "DescribeKey", map[string]any{"KeyId": w.key})
		if err != nil || at(body, "KeyMetadata.Description") != w.name {
			return fmt.Errorf("the key: %v, %w", body, err)
		}
	}
	if w.alias != "" {
		body, err := p.call(who, "Kms", w.region, "DescribeKey", map[string]any{"KeyId": w.alias})
		if err != nil || at(body, "KeyMetadata.KeyId") != w.key {
			return fmt.Errorf("the alias: %v, %w", body, err)
		}
	}
	if w.blob != "" {
		body, err := p.call(who, "Kms", w.region, "Decrypt", map[string]any{"CiphertextBlob": w.blob})
		if err != nil || body["Plaintext"] != plain(w.name) {
			return fmt.Errorf("the blob: %w", err)
		}
	}
	if w.token == "" {
		return nil
	}
	body, err := p.call(who, "Kms", w.region, "DescribeKey", map[string]any{"KeyId": w.external})
	if state := at(body, "KeyMetadata.KeyState"); err != nil || w.imported && state != "Enabled" {
		return fmt.Errorf("the imported key is %v, %w", state, err)
	}
	return w.importInto(p) // the token is good, and the material the same
}

// TestStateSurvivesSIGKILL kills the emulator under load, again and again: what
// it answered is there afterwards, and it starts with whatever it left behind.
func TestStateSurvivesSIGKILL(t *testing.T) {
	const workers, rounds, acknowledgements = 6, 4, 70
	state := t.TempDir()
	var all []*testimony
	for round := range rounds {
		p := startProcess(t, state)
		enough := make(chan struct{})
		var mu sync.Mutex
		count := 0
		acknowledged := func() {
			mu.Lock()
			defer mu.Unlock()
			if count++; count == acknowledgements {
				close(enough)
			}
		}
		var wg sync.WaitGroup
		for worker := range workers {
			wg.Go(func() {
				for i := 0; ; i++ {
					w := &testimony{name: fmt.Sprintf("w%d-%d-%d", round, worker, i), region: []string{"cn-hangzhou", "cn-shanghai"}[i%2]}
					mu.Lock()
					all = append(all, w)
					mu.Unlock()
					if w.work(p, acknowledged) != nil {
						return // killed
					}
				}
			})
		}
		<-enough
		p.kill()
		wg.Wait()

		after := startProcess(t, state)
		for _, w := range all {
			if err := w.check(after); err != nil {
				t.Errorf("round %d, %s: %v", round, w.name, err)
			}
		}
		after.kill()
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Logf("%d killings, %d witnesses", 2*rounds, len(all))
}
