package hsmsim_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// A program in C looks Thales' extension functions up by name, which the
// binding cannot.
func TestExtensionFunctions(t *testing.T) {
	program := filepath.Join(t.TempDir(), "extensions")
	out, err := exec.Command("cc", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror",
		"-I/usr/include/p11-kit-1", "-o", program, "testdata/extensions.c", "-ldl").CombinedOutput()
	if err != nil {
		t.Fatalf("cc: %v\n%s", err, out)
	}
	for dress, want := range map[hsmsim.Dress]func(*hsmsim.Sim) string{
		hsmsim.Luna: func(*hsmsim.Sim) string {
			return "CA_GetTokenPolicies 0x0 0=1 1=0 5=1 11=1 20=10 28=1 43=1\n" +
				"CA_GetHSMPolicySet 0x0 12=1 15=0\n" +
				"CA_GetFirmwareVersion 0x0 7.7.1\n" +
				"CA_GetHAState 0x54 \n"
		},
		hsmsim.LunaFIPS: func(*hsmsim.Sim) string {
			return "CA_GetTokenPolicies 0x0 0=1 1=0 5=1 11=1 20=10 28=1 43=0\n" +
				"CA_GetHSMPolicySet 0x0 12=0 15=0\n" +
				"CA_GetFirmwareVersion 0x0 7.7.1\n" +
				"CA_GetHAState 0x54 \n"
		},
		hsmsim.LunaHA: func(s *hsmsim.Sim) string {
			s.MemberDown(2)
			return "CA_GetTokenPolicies 0x0 0=1 1=0 5=1 11=1 20=10 28=1 43=1\n" +
				"CA_GetHSMPolicySet 0x0 12=1 15=0\n" +
				"CA_GetFirmwareVersion 0x0 7.7.1\n" +
				"CA_GetHAState 0x0 " + s.Serial + " " + s.MemberSerials[0] + "=0x0 " + s.MemberSerials[1] + "=0x30\n"
		},
		hsmsim.DPoD: func(*hsmsim.Sim) string {
			return "CA_GetTokenPolicies 0x0 0=1 1=0 5=1 11=1 20=10 28=1 43=0\n" +
				"CA_GetHSMPolicySet 0x54\n" +
				"CA_GetFirmwareVersion 0x0 7.7.1\n" +
				"CA_GetHAState 0x54 \n"
		},
	} {
		t.Run(string(dress), func(t *testing.T) {
			sim := hsmsim.New(t, dress)
			expected := want(sim)
			cmd := exec.Command(program, sim.Library)
			cmd.Env = append(os.Environ(), sim.Env...)
			cmd.Stderr = os.Stderr
			if got, err := cmd.Output(); err != nil || string(got) != expected {
				t.Errorf("%v\ngot  %swant %s", err, got, expected)
			}
		})
	}
}
