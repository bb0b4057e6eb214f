package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11"
	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
	"github.com/kmsbroker/kmsbroker/hsm/plugin"
)

// toolVariable makes the test binary the other program that works on a token.
const toolVariable = "CONFORMANCE_TEST_TOOL"

func TestMain(m *testing.M) {
	if job := os.Getenv(toolVariable); job != "" {
		if err := tool(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// tool plants a key or counts objects. The PIN comes on standard input.
func tool(job string) error {
	pin, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	module := p11.New(os.Args[1])
	if err := module.Initialize(); err != nil {
		return err
	}
	defer module.Finalize()
	slots, err := module.GetSlotList(true)
	if err != nil {
		return err
	}
	session, err := module.OpenSession(slots[0], p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
	if err != nil {
		return err
	}
	if err := module.Login(session, p11.CKU_USER, string(pin)); err != nil {
		return err
	}
	if job == "count" {
		if err := module.FindObjectsInit(session, nil); err != nil {
			return err
		}
		objects, _, err := module.FindObjects(session, 10_000)
		fmt.Println(len(objects))
		return err
	}
	id, err := hsm.ParseKeyID(job)
	if err != nil {
		return err
	}
	_, err = module.GenerateKey(session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_ID, id.Bytes()), p11.NewAttribute(p11.CKA_LABEL, "planted"),
		p11.NewAttribute(p11.CKA_VALUE_LEN, 32), p11.NewAttribute(p11.CKA_SENSITIVE, true), p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
	})
	return err
}

func runTool(f *softhsmtest.Fixture, job string) (string, error) {
	cmd := exec.Command(os.Args[0], f.Library)
	cmd.Env = append(os.Environ(), toolVariable+"="+job, f.Env())
	cmd.Stdin = strings.NewReader(f.PIN)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// withTool lets another program see to what the suite cannot do itself.
func withTool(config Config, f *softhsmtest.Fixture) Config {
	config.Plant = func(_ context.Context, id hsm.KeyID) error {
		_, err := runTool(f, string(id))
		return err
	}
	config.Objects = func(context.Context) (int, error) {
		out, err := runTool(f, "count")
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(out)
	}
	config.Leaks = func(text string) bool { return strings.Contains(text, f.PIN) }
	config.Destructive = true
	return config
}

// judge demands that SoftHSM passes everything, except for the algorithm that
// the versions up to 2.7.0 do not have.
func judge(t *testing.T, report *Report, notRun ...string) {
	t.Helper()
	want := map[string]Status{}
	for _, id := range notRun {
		want[id] = NotRun
	}
	if report.Device != nil && !strings.Contains(fmt.Sprint(report.Device.WrappingAlgorithms), string(hsm.OAEPSHA256)) {
		want["W-01"], want["W-04"] = NotSupported, NotSupported
	}
	for _, result := range report.Results {
		expected := want[result.ID]
		if expected == "" {
			expected = Passed
		}
		if result.Status != expected {
			t.Errorf("want %s: %s", expected, result)
		}
	}
	if report.Verdict != VerdictPassed || len(report.LeftBehind) > 0 {
		t.Errorf("verdict %s, left behind %v", report.Verdict, report.LeftBehind)
	}
	if w := result(t, report, "W-01"); w.Status == NotSupported && w.Code == "" {
		t.Error("the device's answer is not in the report")
	}
}

func TestSoftHSMEngine(t *testing.T) {
	f := softhsmtest.New(t)
	t.Setenv("SOFTHSM2_CONF", f.ConfPath)
	open := func(ctx context.Context, pin []byte) (hsm.Token, error) {
		token, err := pkcs11.Open(ctx, pkcs11.Config{Library: f.Library, TokenLabel: f.Label, PIN: hsm.PIN(pin)})
		if err != nil {
			return nil, err
		}
		return token, nil
	}
	report := newSuite(withTool(Config{
		Open:        func(ctx context.Context) (hsm.Token, error) { return open(ctx, []byte(f.PIN)) },
		OpenWithPIN: open,
	}, f), sharedRSA).run(t.Context())
	judge(t, report, "I-09", "R-03", "R-04", "E-06")
}

// pluginProcess is the one process that runs at a time.
type pluginProcess struct {
	t       *testing.T
	command plugin.Command
	config  plugin.OpenConfig
	process *plugin.Process
}

func (p *pluginProcess) open(ctx context.Context, pin []byte) (hsm.Token, error) {
	if p.process != nil {
		p.process.Kill()
	}
	process, err := plugin.Start(ctx, p.command)
	if err != nil {
		return nil, err
	}
	p.process = process
	config := p.config
	config.PIN = hsm.PIN(pin)
	return process.Open(ctx, config)
}

func (p *pluginProcess) kill() error {
	if p.process == nil {
		return errors.New("no process")
	}
	p.process.Kill()
	return nil
}

func TestSoftHSMPlugin(t *testing.T) {
	f := softhsmtest.New(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "softhsm")
	if out, err := exec.Command("go", "build", "-o", path, "../../plugins/softhsm").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	sockets, err := os.MkdirTemp("", "hsm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })

	p := &pluginProcess{t: t, command: plugin.Command{
		Path: path, SHA256: sum[:], Env: []string{f.Env()}, SocketDir: sockets, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}, config: plugin.OpenConfig{Settings: map[string]string{"token_label": f.Label}}}
	t.Cleanup(func() { _ = p.kill() })
	report := newSuite(withTool(Config{
		Open:        func(ctx context.Context) (hsm.Token, error) { return p.open(ctx, []byte(f.PIN)) },
		OpenWithPIN: p.open,
		Kill:        p.kill,
		Plugin:      path, PluginSHA256: fmt.Sprintf("%x", sum),
	}, f), sharedRSA).run(t.Context())
	judge(t, report, "I-09", "E-06")
	if err := report.WriteText(t.Output()); err != nil {
		t.Error(err)
	}
}
