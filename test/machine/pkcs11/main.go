//go:build root

// Command pkcs11 is a PKCS#11 application, of the honest or of the other kind, that
// speaks p11-kit's protocol with the daemon.
//
//	pkcs11 make LABEL      make a key on the token
//	pkcs11 sign LABEL      sign for each line of standard input, and say "right"
//	pkcs11 keep LABEL      leave everything half done: an object, a signature, a search;
//	                       print the frames that were sent, and die of SIGKILL when told
//	pkcs11 pry FRAMES      look for what is others', also with their frames, and print it
//	pkcs11 hold N          keep N connections, each with a session, and print how many
//	pkcs11 cut N           N times leave a frame, an operation or a call in the middle
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki/rpc"
	"github.com/kmsbroker/kmsbroker/test/application"
)

const (
	socket = "/run/kmsbroker/pkcs11.sock"
	token  = "machine"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pkcs11:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: pkcs11 make|sign|keep|pry|hold|cut ARGUMENT")
	}
	switch what := args[1]; args[0] {
	case "make":
		a, _, err := connect()
		return errors.Join(err, a.Generate(what, 2048))
	case "sign":
		return sign(what)
	case "keep":
		return keep(what)
	case "pry":
		return pry(what)
	case "hold":
		return hold(what)
	case "cut":
		return cut(what)
	default:
		return fmt.Errorf("what is %q?", args[0])
	}
}

// connect returns an application, whose frames go over the connection.
func connect() (*application.Application, net.Conn, error) {
	calls, conn, err := application.Dial(context.Background(), socket)
	if err != nil {
		return nil, nil, err
	}
	a := &application.Application{Library: calls, Token: token}
	return a, conn, a.Initialize()
}

func sign(label string) error {
	a, _, err := connect()
	if err != nil {
		return err
	}
	public, err := a.Key(cryptoki.CKO_PUBLIC_KEY, label)
	if err != nil {
		return err
	}
	key, err := a.Public(public)
	if err != nil {
		return err
	}
	private, err := a.Key(cryptoki.CKO_PRIVATE_KEY, label)
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		signature, err := a.Sign(private, lines.Bytes())
		if err == nil {
			err = application.Verify(key, signature, lines.Bytes())
		}
		if err != nil {
			return err
		}
		fmt.Println("right")
	}
	return nil
}

// keep prints what a spy could have seen of its calls.
func keep(label string) error {
	a, _, err := connect()
	if err != nil {
		return err
	}
	key, err := a.Key(cryptoki.CKO_PRIVATE_KEY, label)
	if err != nil {
		return err
	}
	own := application.Call(cryptoki.CreateObject, a.Session)
	own.Templates[0] = []cryptoki.Attribute{
		cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_DATA), cryptoki.BytesAttribute(cryptoki.CKA_LABEL, []byte(label+"-session")),
		cryptoki.BytesAttribute(cryptoki.CKA_VALUE, []byte("a secret of "+label)),
	}
	made, err := a.Do(own)
	if err != nil {
		return err
	}
	begin := application.Call(cryptoki.SignInit, a.Session, key)
	begin.Mechanism = &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256_RSA_PKCS}
	next := application.Call(cryptoki.SignUpdate, a.Session)
	next.Data[0] = []byte("half of it")
	read := application.Call(cryptoki.GetAttributeValue, a.Session, made.Numbers[0])
	read.Templates[0] = []cryptoki.Attribute{{Type: cryptoki.CKA_LABEL, Length: 100}, {Type: cryptoki.CKA_VALUE, Length: 100}}
	kept := []*cryptoki.Call{begin, next, application.Call(cryptoki.FindObjectsInit, a.Session)}
	for _, call := range kept {
		if _, err := a.Do(call); err != nil {
			return err
		}
	}
	kept = append(kept, read, application.Call(cryptoki.SignFinal, a.Session), application.Call(cryptoki.FindObjects, a.Session),
		application.Call(cryptoki.DestroyObject, a.Session, key), application.Call(cryptoki.DestroyObject, a.Session, made.Numbers[0]),
		application.Call(cryptoki.CloseSession, a.Session), application.Call(cryptoki.CloseAllSessions, 1))
	var frames []string
	for _, call := range kept {
		body, err := rpc.Latest.AppendCall(nil, call)
		if err != nil {
			return err
		}
		frames = append(frames, hex.EncodeToString(body))
	}
	fmt.Println(strings.Join(frames, ","))
	if bufio.NewScanner(os.Stdin).Scan() {
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return nil
}

// pry prints every label that it gets to see, and every signature that is not its own.
func pry(frames string) error {
	a, _, err := connect()
	if err != nil {
		fmt.Println("nothing:", err)
		return nil //nolint:nilerr // who sees no token is done
	}
	seen := map[string]bool{}
	note := func(call *cryptoki.Call) {
		answer, err := a.Library(call)
		if err != nil {
			seen[err.Error()] = true
			return
		}
		for _, v := range answer.Attributes {
			if v.Value != nil {
				seen[string(v.Value)] = true
			}
		}
		if answer.RV == cryptoki.CKR_OK && call.Function == cryptoki.SignFinal {
			seen["a signature"] = true
		}
	}
	for frame := range strings.SplitSeq(frames, ",") {
		body, err := hex.DecodeString(frame)
		if err != nil {
			return err
		}
		call, err := rpc.Latest.ParseCall(body)
		if err != nil {
			return err
		}
		note(call)
	}
	if err := a.Open(); err != nil { // a replayed frame closed it
		return err
	}
	const most = 5000
	for handle := range uint64(most) {
		read := application.Call(cryptoki.GetAttributeValue, a.Session, handle)
		read.Templates[0] = []cryptoki.Attribute{{Type: cryptoki.CKA_LABEL, Length: 100}}
		note(read)
		for session := range uint64(4) {
			note(application.Call(cryptoki.SignFinal, handle*4+session))
		}
	}
	found, err := a.Find()
	if err != nil {
		return err
	}
	for _, handle := range found {
		read := application.Call(cryptoki.GetAttributeValue, a.Session, handle)
		read.Templates[0] = []cryptoki.Attribute{{Type: cryptoki.CKA_LABEL, Length: 100}}
		note(read)
	}
	var all []string
	for what := range seen {
		all = append(all, what)
	}
	slices.Sort(all)
	fmt.Println(strings.Join(all, ","))
	return nil
}

func hold(number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	held := 0
	for range n {
		if _, _, err := connect(); err == nil {
			held++
		}
	}
	fmt.Println(held)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// cut connects again and again, and goes without a word.
func cut(number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	for i := range n {
		a, conn, err := connect()
		if err != nil {
			return err
		}
		found, err := a.Find(cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_PRIVATE_KEY))
		if err != nil {
			return err
		}
		begin := application.Call(cryptoki.SignInit, a.Session, found[0])
		begin.Mechanism = &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256_RSA_PKCS}
		if _, err := a.Do(begin); err != nil {
			return err
		}
		last := application.Call(cryptoki.Sign, a.Session)
		last.Data[0] = []byte("nobody will read it")
		body, err := rpc.Latest.AppendCall(rpc.BeginFrame(nil), last)
		if err != nil {
			return err
		}
		rpc.EndFrame(body, 0, 99)
		if _, err := conn.Write(body[:len(body)*(i%3)/2]); err != nil {
			return err
		}
		conn.Close()
	}
	fmt.Println("done")
	return nil
}
