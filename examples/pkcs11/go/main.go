// Program go signs what it reads with an RSA key that is in the HSM, and prints the
// signature. It needs cgo.
//
//	echo message | go run . TOKEN KEY >signature
package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/miekg/pkcs11"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: go TOKEN KEY")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(token, label string) error {
	message, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	library := pkcs11.New(os.Getenv("MODULE"))
	if library == nil {
		return fmt.Errorf("MODULE=%q is not a PKCS#11 library", os.Getenv("MODULE"))
	}
	defer library.Destroy()
	if err := library.Initialize(); err != nil {
		return err
	}
	defer func() { _ = library.Finalize() }()
	session, err := open(library, token)
	if err != nil {
		return err
	}
	// The broker does not look at the PIN: it knows who calls.
	if err := library.Login(session, pkcs11.CKU_USER, cmp.Or(os.Getenv("PIN"), "0000")); err != nil {
		return err
	}
	key, err := find(library, session, label)
	if err != nil {
		return err
	}
	if err := library.SignInit(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256_RSA_PKCS, nil)}, key); err != nil {
		return err
	}
	signature, err := library.Sign(session, message)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(signature)
	return err
}

func open(library *pkcs11.Ctx, token string) (pkcs11.SessionHandle, error) {
	slots, err := library.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	for _, slot := range slots {
		info, err := library.GetTokenInfo(slot)
		if err != nil {
			return 0, err
		}
		if strings.TrimRight(info.Label, " ") == token {
			return library.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
		}
	}
	return 0, fmt.Errorf("no token %q", token)
}

func find(library *pkcs11.Ctx, session pkcs11.SessionHandle, label string) (pkcs11.ObjectHandle, error) {
	err := library.FindObjectsInit(session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
	})
	if err != nil {
		return 0, err
	}
	found, _, err := library.FindObjects(session, 1)
	if err = errors.Join(err, library.FindObjectsFinal(session)); err != nil {
		return 0, err
	}
	if len(found) == 0 {
		return 0, fmt.Errorf("no private key %q", label)
	}
	return found[0], nil
}
