package hsmsim_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"
)

// children are what the test binary does instead of testing. The arguments are
// the library and the serial of the partition, then the function's own.
var children = map[string]func(module *p11.Ctx, serial string, args []string) error{
	"login":    childLogin,
	"use":      childUse,
	"finalize": childFinalize,
	"load":     func(*p11.Ctx, string, []string) error { return nil },
}

func TestMain(m *testing.M) {
	child, ok := children[os.Getenv("HSMSIM_TEST_CHILD")]
	if !ok {
		os.Exit(m.Run())
	}
	module := p11.New(os.Args[1])
	if module == nil {
		fmt.Fprintln(os.Stderr, "the library does not load")
		os.Exit(1)
	}
	if err := child(module, os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func childSession(module *p11.Ctx, serial string) (p11.SessionHandle, error) {
	if err := module.Initialize(); err != nil {
		return 0, err
	}
	ids, err := module.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		if info, err := module.GetTokenInfo(id); err == nil && info.SerialNumber == serial {
			return module.OpenSession(id, readWrite)
		}
	}
	return 0, errors.New("no such partition")
}

// childLogin tries each PIN once and prints the codes.
func childLogin(module *p11.Ctx, serial string, pins []string) error {
	session, err := childSession(module, serial)
	if err != nil {
		return err
	}
	for _, pin := range pins {
		code := p11.Error(p11.CKR_OK)
		if err := module.Login(session, p11.CKU_USER, pin); err != nil {
			code, _ = errors.AsType[p11.Error](err)
		}
		fmt.Printf("0x%X\n", uint(code))
	}
	return module.Finalize()
}

// childUse logs in and asks for a random byte.
func childUse(module *p11.Ctx, serial string, args []string) error {
	session, err := childSession(module, serial)
	if err != nil {
		return err
	}
	if err := module.Login(session, p11.CKU_USER, args[0]); err != nil {
		return err
	}
	if _, err := module.GenerateRandom(session, 1); err != nil {
		return err
	}
	fmt.Println("random")
	return module.Finalize()
}

// childFinalize calls C_Finalize while another call is in the library, which
// the parent lets hang. The third argument is the call log.
func childFinalize(module *p11.Ctx, serial string, args []string) error {
	session, err := childSession(module, serial)
	if err != nil {
		return err
	}
	go module.GenerateRandom(session, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		log, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		if strings.Contains(string(log), "rv=hang") {
			return module.Finalize()
		}
	}
	return errors.New("the other call never came into the library")
}
