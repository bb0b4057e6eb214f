package bench

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/faults"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

// emulatorProcess is an emulated KMS without quotas.
type emulatorProcess struct{ url string }

func startEmulator(b *testing.B) *emulatorProcess {
	b.Helper()
	cmd := exec.Command(filepath.Join(stage.Binaries(b), "kmsbrokerctl"), "emulator",
		"--listen", "127.0.0.1:0", "--region", stage.Region, "--region", stage.OtherRegion, "--quota", "off", "--control")
	cmd.Env = []string{"ALIBABA_CLOUD_ACCESS_KEY_ID=" + stage.AccessKeyID, "ALIBABA_CLOUD_ACCESS_KEY_SECRET=" + stage.AccessKeySecret}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if url, ok := strings.CutPrefix(lines.Text(), "ready: "); ok {
			return &emulatorProcess{url}
		}
	}
	b.Fatal("the emulator did not get ready")
	return nil
}

// delay makes every answer come so much later.
func (e *emulatorProcess) delay(b *testing.B, by time.Duration) {
	b.Helper()
	plan := faults.Plan{}
	if by > 0 {
		plan.Rules = []faults.Rule{{Kind: faults.Latency, Delay: faults.Duration(by)}}
	}
	body, err := json.Marshal(plan)
	if err != nil {
		b.Fatal(err)
	}
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPut, e.url+"/-/faults", bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		b.Fatal(resp.Status)
	}
}
