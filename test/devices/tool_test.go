package devices

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// toolVariable makes the test binary the other program that works on a token: it
// plants a key that may not leave, which no backend makes, and it has to be
// another process because one process can use one device.
const toolVariable = "DEVICES_TEST_TOOL"

func TestMain(m *testing.M) {
	if id := os.Getenv(toolVariable); id != "" {
		if err := tool(id); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// plant makes an AES key whose CKA_EXTRACTABLE is false.
func (d *device) plant(id hsm.KeyID) error {
	cmd := exec.Command(os.Args[0], d.Library, d.Serial)
	cmd.Env = append(append(os.Environ(), d.Env...), toolVariable+"="+string(id))
	cmd.Stdin = strings.NewReader(d.PIN)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, stderr.String())
	}
	return nil
}

// tool plants a key. The PIN comes on standard input.
func tool(name string) error {
	pin, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	id, err := hsm.ParseKeyID(name)
	if err != nil {
		return err
	}
	module := p11.New(os.Args[1])
	if module == nil {
		return fmt.Errorf("%s does not load", os.Args[1])
	}
	if err := module.Initialize(); err != nil {
		return err
	}
	defer module.Finalize()
	session, err := openSession(module, os.Args[2])
	if err != nil {
		return err
	}
	if err := module.Login(session, p11.CKU_USER, string(pin)); err != nil {
		return err
	}
	_, err = module.GenerateKey(session, []*p11.Mechanism{p11.NewMechanism(p11.CKM_AES_KEY_GEN, nil)}, []*p11.Attribute{
		p11.NewAttribute(p11.CKA_TOKEN, true), p11.NewAttribute(p11.CKA_ID, id.Bytes()), p11.NewAttribute(p11.CKA_LABEL, "planted"),
		p11.NewAttribute(p11.CKA_VALUE_LEN, 32), p11.NewAttribute(p11.CKA_SENSITIVE, true), p11.NewAttribute(p11.CKA_EXTRACTABLE, false),
	})
	return err
}

func openSession(module *p11.Ctx, serial string) (p11.SessionHandle, error) {
	slots, err := module.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	for _, slot := range slots {
		if info, err := module.GetTokenInfo(slot); err == nil && info.SerialNumber == serial {
			return module.OpenSession(slot, p11.CKF_SERIAL_SESSION|p11.CKF_RW_SESSION)
		}
	}
	return 0, errors.New("the token is gone")
}
