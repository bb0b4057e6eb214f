//go:build root

package opencryptoki

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// toolVariable makes the test binary the other program that works on the token:
// what the suite cannot see through the backend, it sees through this one.
const toolVariable = "OPENCRYPTOKI_TEST_TOOL"

// runTool counts the objects on the token with the job "count", and plants a key
// that may not leave it with an ID for a job.
func (d *device) runTool(job string) (string, error) {
	cmd := exec.Command(os.Args[0], d.library)
	cmd.Env = append(os.Environ(), toolVariable+"="+job)
	cmd.Stdin = strings.NewReader(userPIN)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

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
	session, err := openSession(module)
	if err != nil {
		return err
	}
	if err := module.Login(session, p11.CKU_USER, string(pin)); err != nil {
		return err
	}
	if job == "count" {
		return countObjects(module, session)
	}
	return plant(module, session, job)
}

func openSession(module *p11.Ctx) (p11.SessionHandle, error) {
	slots, err := module.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	for _, slot := range slots {
		if info, err := module.GetTokenInfo(slot); err == nil && info.Label == tokenLabel {
			return module.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
		}
	}
	return 0, errors.New("the token is gone")
}

func countObjects(module *p11.Ctx, session p11.SessionHandle) error {
	if err := module.FindObjectsInit(session, nil); err != nil {
		return err
	}
	objects, _, err := module.FindObjects(session, 10_000)
	fmt.Println(len(objects))
	return err
}

func plant(module *p11.Ctx, session p11.SessionHandle, name string) error {
	id, err := hsm.ParseKeyID(name)
	if err != nil {
		return err
	}
	_, err = module.GenerateKey(session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_ID, id.Bytes()), p11.NewAttribute(p11.CKA_LABEL, "planted"),
		p11.NewAttribute(p11.CKA_VALUE_LEN, 32), p11.NewAttribute(p11.CKA_SENSITIVE, true), p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
	})
	return err
}
