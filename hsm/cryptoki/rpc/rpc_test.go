package rpc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// calls has one call of each function whose parameters are carried, and the corners
// of what they can be.
func calls() []cryptoki.Call {
	nested := []cryptoki.Attribute{
		cryptoki.BoolAttribute(cryptoki.CKA_TOKEN, true),
		cryptoki.UlongAttribute(cryptoki.CKA_CLASS, cryptoki.CKO_SECRET_KEY),
		cryptoki.BytesAttribute(cryptoki.CKA_LABEL, []byte("a label")),
		{Type: cryptoki.CKA_ID, Length: 0},
		{Type: cryptoki.CKA_START_DATE, Length: 8, Value: []byte("20261231")},
		{Type: cryptoki.CKA_ALLOWED_MECHANISMS, Length: 16, Value: append(cryptoki.Ulong(1), cryptoki.Ulong(9)...)},
		{Type: cryptoki.CKA_WRAP_TEMPLATE, Length: 2 * cryptoki.AttributeSize, Nested: []cryptoki.Attribute{
			cryptoki.BoolAttribute(cryptoki.CKA_EXTRACTABLE, false),
			{Type: cryptoki.CKA_UNWRAP_TEMPLATE, Length: cryptoki.AttributeSize, Nested: []cryptoki.Attribute{cryptoki.BytesAttribute(cryptoki.CKA_VALUE, []byte{1})}},
		}},
	}
	var all []cryptoki.Call
	for f := cryptoki.Initialize; f <= cryptoki.DeriveKey2; f++ {
		if !carried(f) {
			continue
		}
		c := cryptoki.Call{Function: f}
		for rest, n, d, t := signatures[f].request, 0, 0, 0; rest != ""; {
			var part string
			part, rest = next(rest)
			switch part {
			case "u":
				c.Numbers[n] = 1<<40 + uint64(n)
				n++
			case "y":
				c.Flag = true
			case "ay", "s", "z":
				c.Data[d] = []byte("data of a call")[d:]
				d++
			case "fy", "fu":
				c.Room.Size = 77
			case "M":
				c.Mechanism = &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256_RSA_PKCS}
			case "aA":
				c.Templates[t] = nested[t:]
				t++
			case "fA":
				c.Templates[0] = []cryptoki.Attribute{
					{Type: cryptoki.CKA_LABEL, Length: 100}, {Type: cryptoki.CKA_ID},
					{Type: cryptoki.CKA_WRAP_TEMPLATE, Length: cryptoki.AttributeSize, Nested: []cryptoki.Attribute{{Type: cryptoki.CKA_VALUE, Length: 3}}},
				}
			}
		}
		all = append(all, c)
	}
	for _, m := range []*cryptoki.Mechanism{
		nil, {Type: cryptoki.CKM_RSA_PKCS_OAEP}, {Type: cryptoki.CKM_AES_CBC, Parameter: cryptoki.Bytes("0123456789abcdef")},
		{Type: cryptoki.CKM_RSA_PKCS_PSS, Parameter: &cryptoki.PSS{Hash: 1, MGF: 2, SaltLength: 3}},
		{Type: cryptoki.CKM_RSA_PKCS_OAEP, Parameter: &cryptoki.OAEP{Hash: 1, MGF: 2, Source: 3, SourceData: []byte{}}},
		{Type: cryptoki.CKM_ECDH1_DERIVE, Parameter: &cryptoki.ECDH1{KDF: 1, PublicData: []byte{4}}},
		{Type: cryptoki.CKM_AES_CTR, Parameter: &cryptoki.CTR{CounterBits: 128, Counter: [16]byte{15: 1}}},
		{Type: cryptoki.CKM_AES_GCM, Parameter: &cryptoki.GCM{IV: []byte("twelve bytes"), IVBits: 96, TagBits: 128}},
		{Type: cryptoki.CKM_SHA256_HMAC_GENERAL, Parameter: cryptoki.Number(16)},
		{Type: 0x80000001, Parameter: cryptoki.Bytes("vendor")},
	} {
		all = append(all, cryptoki.Call{Function: cryptoki.EncryptInit, Numbers: [4]uint64{1, 2}, Mechanism: m})
	}
	return append(all,
		cryptoki.Call{Function: cryptoki.Sign, Data: [2][]byte{{}}, Room: cryptoki.Room{Null: true}},
		cryptoki.Call{Function: cryptoki.Sign, Room: cryptoki.Room{}},
		cryptoki.Call{Function: cryptoki.GetSlotList, Room: cryptoki.Room{Null: true}},
	)
}

func TestCalls(t *testing.T) {
	for _, call := range calls() {
		for v := Version(0); v <= Latest; v++ {
			if v < 2 && call.Mechanism != nil && call.Mechanism.Parameter == nil && shapeOf(call.Mechanism.Type) != asBytes {
				if _, err := v.AppendCall(nil, &call); err == nil {
					t.Errorf("version %d has a place for %#x without a parameter", v, call.Mechanism.Type)
				}
				continue
			}
			body, err := v.AppendCall(nil, &call)
			if err != nil {
				t.Fatalf("version %d, %+v: %v", v, call, err)
			}
			got, err := v.ParseCall(body)
			if err != nil || !reflect.DeepEqual(*got, call) {
				t.Errorf("version %d, %v: %v\ngot  %+v\nwant %+v", v, call.Function, err, got, call)
			}
			for n := range body {
				// Without what is in a template it is a message of an older client.
				if _, err := v.ParseCall(body[:n]); err == nil && call.Function != cryptoki.GetAttributeValue {
					t.Errorf("version %d, %v: %d bytes of %d are understood", v, call.Function, n, len(body))
				}
			}
			if _, err := v.ParseCall(append(body, 0)); err == nil {
				t.Errorf("version %d, %v: something follows and is not seen", v, call.Function)
			}
		}
	}
}

// TestNoParameter: a parameter for a mechanism that has none comes from a client of an
// older version, and does not go on.
func TestNoParameter(t *testing.T) {
	call := cryptoki.Call{Function: cryptoki.SignInit, Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_AES_ECB, Parameter: cryptoki.Bytes("IV")}}
	for v := Version(0); v <= Latest; v++ {
		body, err := v.AppendCall(nil, &call)
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.ParseCall(body)
		if err != nil || (got.Mechanism.Parameter == nil) != (v == 2) {
			t.Errorf("version %d: %+v, %v", v, got.Mechanism, err)
		}
	}
}

// TestGolden is C_SignInit as p11-kit-client.so sends it, up to 0.25.5 and from 0.25.6.
func TestGolden(t *testing.T) {
	want := cryptoki.Call{Function: cryptoki.SignInit, Numbers: [4]uint64{16, 2}, Mechanism: &cryptoki.Mechanism{Type: cryptoki.CKM_SHA256_RSA_PKCS}}
	for version, text := range map[Version]string{
		0: "0000002a 00000003 754d75 0000000000000010 00000040 ffffffff 0000000000000002",
		1: "0000002a 00000003 754d75 0000000000000010 00000040 ffffffff 0000000000000002",
		2: "0000002a 00000003 754d75 0000000000000010 00000040 0000000000000002",
	} {
		body, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		got, err := version.ParseCall(body)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("version %d: %v\ngot  %+v\nwant %+v", version, err, got, want)
		}
	}
}

func answersTo(call *cryptoki.Call) []*cryptoki.Answer {
	all := []*cryptoki.Answer{cryptoki.Refuse(cryptoki.CKR_DEVICE_REMOVED)}
	switch signatures[call.Function].response {
	case "ay":
		all = append(all, &cryptoki.Answer{Data: []byte("result"), Size: 6}, &cryptoki.Answer{Data: []byte{}})
		if !call.Room.Null {
			all = append(all, &cryptoki.Answer{RV: cryptoki.CKR_BUFFER_TOO_SMALL, Size: 256})
		} else {
			all = append(all, &cryptoki.Answer{Size: 256})
		}
	case "au":
		all = append(all, &cryptoki.Answer{List: []uint64{1, 1 << 60}, Size: 2}, &cryptoki.Answer{List: []uint64{}})
	case "aAu":
		a := calls()[cryptoki.CreateObject-1].Templates[0]
		a = append(a, cryptoki.Attribute{Type: cryptoki.CKA_PRIME_1, Length: cryptoki.Unavailable})
		all = append(all, &cryptoki.Answer{Attributes: a}, &cryptoki.Answer{Attributes: a, RV: cryptoki.CKR_ATTRIBUTE_SENSITIVE})
	case "u", "uu", "uuu", "uuuu":
		a := &cryptoki.Answer{}
		for i := range signatures[call.Function].response {
			a.Numbers[i] = uint64(i) << 33
		}
		all = append(all, a)
	}
	switch call.Function {
	case cryptoki.GetInfo:
		all = append(all, &cryptoki.Answer{Info: &cryptoki.LibraryInfo{Cryptoki: cryptoki.Version{Major: 2, Minor: 40}, Flags: 1}})
	case cryptoki.GetSlotInfo:
		all = append(all, &cryptoki.Answer{Info: &cryptoki.SlotInfo{Flags: 7}})
	case cryptoki.GetTokenInfo:
		all = append(all, &cryptoki.Answer{Info: &cryptoki.TokenInfo{Counts: [10]uint64{9: 9}}})
	case cryptoki.DeriveKey2:
		all = append(all, &cryptoki.Answer{Numbers: [4]uint64{7}})
	}
	return all
}

func TestAnswers(t *testing.T) {
	for _, call := range calls() {
		for v := Version(0); v <= Latest; v++ {
			for _, answer := range answersTo(&call) {
				body, err := v.AppendAnswer(nil, &call, answer)
				if err != nil {
					t.Fatalf("%v %+v: %v", call.Function, answer, err)
				}
				got, err := v.ParseAnswer(body, &call)
				if err != nil || !reflect.DeepEqual(got, answer) {
					t.Errorf("version %d, %v: %v\ngot  %+v\nwant %+v", v, call.Function, err, got, answer)
				}
				for n := range body {
					if _, err := v.ParseAnswer(body[:n], &call); err == nil {
						t.Errorf("version %d, %v: %d bytes of %d are understood", v, call.Function, n, len(body))
					}
				}
			}
		}
	}
}

// TestLengths is a question for lengths, which come without values also for attributes of
// which something always follows.
func TestLengths(t *testing.T) {
	var asked, lengths []cryptoki.Attribute
	for attribute, length := range map[uint64]uint64{
		cryptoki.CKA_LABEL: 6, cryptoki.CKA_CLASS: 8, cryptoki.CKA_TOKEN: 1, cryptoki.CKA_ALLOWED_MECHANISMS: 16, cryptoki.CKA_VALUE: cryptoki.Unavailable,
		cryptoki.CKA_WRAP_TEMPLATE: 2 * cryptoki.AttributeSize,
	} {
		asked = append(asked, cryptoki.Attribute{Type: attribute})
		lengths = append(lengths, cryptoki.Attribute{Type: attribute, Length: length})
	}
	call := &cryptoki.Call{Function: cryptoki.GetAttributeValue, Templates: [2][]cryptoki.Attribute{asked}}
	body, err := Latest.AppendAnswer(nil, call, &cryptoki.Answer{Attributes: lengths})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Latest.ParseAnswer(body, call)
	if err != nil || !reflect.DeepEqual(got.Attributes, lengths) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, lengths)
	}
}

// TestRoom is a question for the length of a template, and for the template, as releases
// of p11-kit ask it.
func TestRoom(t *testing.T) {
	const (
		begin      = "00000018 00000004 75756641 0000000000000010 0000000000000002 "
		label      = " 00000003 00000064"
		noTemplate = " 40000212 00000000"
		template   = " 40000212 00000018"
	)
	length := cryptoki.Attribute{Type: cryptoki.CKA_UNWRAP_TEMPLATE}
	whole := cryptoki.Attribute{Type: cryptoki.CKA_UNWRAP_TEMPLATE, Length: cryptoki.AttributeSize, Nested: []cryptoki.Attribute{{Type: cryptoki.CKA_LABEL, Length: 100}}}
	for release, test := range map[string]struct {
		text string
		want []cryptoki.Attribute
	}{
		"0.24":          {begin + "00000002" + noTemplate + template, []cryptoki.Attribute{length, length}},
		"0.25.5":        {begin + "00000002" + noTemplate + " 00000000" + template + " 00000001" + label, []cryptoki.Attribute{length, whole}},
		"0.26":          {begin + "00000002" + noTemplate + template + " 00000001" + label, []cryptoki.Attribute{length, whole}},
		"0.25.5, alone": {begin + "00000001" + noTemplate + " 00000000", []cryptoki.Attribute{length}},
	} {
		body, err := hex.DecodeString(strings.ReplaceAll(test.text, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		call, err := Version(0).ParseCall(body)
		if err != nil || !reflect.DeepEqual(call.Templates[0], test.want) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v", release, err, call.Templates[0], test.want)
		}
	}
}

func TestBounds(t *testing.T) {
	deep := []cryptoki.Attribute{{Type: cryptoki.CKA_ID}}
	for range maxDepth + 2 {
		deep = []cryptoki.Attribute{{Type: cryptoki.CKA_WRAP_TEMPLATE, Length: cryptoki.AttributeSize, Nested: deep}}
	}
	many := make([]cryptoki.Attribute, maxAttributes+1)
	for name, call := range map[string]cryptoki.Call{
		"nest too deep":       {Function: cryptoki.CreateObject, Templates: [2][]cryptoki.Attribute{deep}},
		"too many attributes": {Function: cryptoki.GenerateKeyPair, Templates: [2][]cryptoki.Attribute{many[:700], many[:700]}},
		"asks for more":       {Function: cryptoki.GetAttributeValue, Templates: [2][]cryptoki.Attribute{{{Type: cryptoki.CKA_LABEL, Length: MaxBody}, {Type: cryptoki.CKA_ID, Length: 1}}}},
		"is unknown":          {Function: 4000},
		"another signature":   {Function: cryptoki.Sign},
	} {
		body := []byte{0, 0, 15, 160, 0, 0, 0, 1, 'u'}
		if name == "another signature" {
			body[2], body[3] = 0, byte(cryptoki.Sign)
		}
		if carried(call.Function) && call.Function != cryptoki.Sign {
			var err error
			if body, err = Latest.AppendCall(nil, &call); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := Latest.ParseCall(body); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFrames is the stream itself: its ends, its bounds, and memory that follows what
// has come and not what was announced.
func TestFrames(t *testing.T) {
	whole := append(BeginFrame(nil), "body"...)
	EndFrame(whole, 0, 5)
	options := []byte{0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 1, 'o', 'o', 'b'}
	tests := []struct {
		name   string
		stream []byte
		code   uint32
		body   string
		err    error
	}{
		{"whole", whole, 5, "body", nil},
		{"options", options, 9, "b", nil},
		{"nothing", nil, 0, "", io.EOF},
		{"half a header", whole[:7], 0, "", io.ErrUnexpectedEOF},
		{"half a body", whole[:14], 0, "", io.ErrUnexpectedEOF},
		{"half the options", options[:13], 0, "", io.ErrUnexpectedEOF},
		{"code 0", make([]byte, headerSize), 0, "", errMalformed},
		{"too long", []byte{0, 0, 0, 1, 0, 0, 0, 0, 0xff, 0, 0, 0}, 0, "", errMalformed},
		{"options too long", []byte{0, 0, 0, 1, 0xff, 0, 0, 0, 0, 0, 0, 0}, 0, "", errMalformed},
	}
	for _, tt := range tests {
		f, err := ReadFrame(bufio.NewReader(bytes.NewReader(tt.stream)), nil)
		if !errors.Is(err, tt.err) || err == nil && (f.Code != tt.code || string(f.Body) != tt.body) {
			t.Errorf("%s: code %d, body %q, %v", tt.name, f.Code, f.Body, err)
		}
	}
	announced := []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0x3f, 0xff, 0xff}
	f, err := ReadFrame(bufio.NewReader(bytes.NewReader(announced)), nil)
	if err == nil || cap(f.Body) > 1<<20 {
		t.Errorf("an announcement alone costs %d bytes, %v", cap(f.Body), err)
	}
}

// TestServer has both sides talk, with a message in between that is not understood.
func TestServer(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	var complaints []error
	served := make(chan error, 1)
	go func() {
		version, offered, err := Accept(theirs)
		if err != nil || version != Latest || offered != Latest+1 {
			t.Errorf("version %d of %d, %v", version, offered, err)
		}
		server := Server{Version: version, Malformed: func(err error) { complaints = append(complaints, err) },
			Do: func(call *cryptoki.Call) *cryptoki.Answer {
				return &cryptoki.Answer{Data: bytes.ToUpper(call.Data[0]), Size: uint32(len(call.Data[0]))}
			}}
		served <- server.Serve(theirs)
	}()
	version, err := Negotiate(ours, Latest+1)
	if err != nil {
		t.Fatal(err)
	}
	client := NewClient(ours, version)
	answer, err := client.Do(context.Background(), &cryptoki.Call{Function: cryptoki.Digest, Data: [2][]byte{[]byte("text")}, Room: cryptoki.Room{Size: 9}})
	if err != nil || string(answer.Data) != "TEXT" {
		t.Fatalf("%+v, %v", answer, err)
	}
	frame := append(BeginFrame(nil), 0, 0, 0, byte(cryptoki.Sign), 0, 0, 0, 1, 'x')
	EndFrame(frame, 0, 77)
	if _, err := ours.Write(frame); err != nil {
		t.Fatal(err)
	}
	refusal, err := ReadFrame(client.stream, nil)
	if err != nil || refusal.Code != 77 {
		t.Fatalf("%+v, %v", refusal, err)
	}
	if a, err := version.ParseAnswer(refusal.Body, &cryptoki.Call{Function: cryptoki.Sign}); err != nil || a.RV != cryptoki.CKR_DEVICE_ERROR {
		t.Errorf("%+v, %v", a, err)
	}
	if answer, err = client.Do(context.Background(), &cryptoki.Call{Function: cryptoki.Digest, Data: [2][]byte{[]byte("again")}, Room: cryptoki.Room{Size: 9}}); err != nil || string(answer.Data) != "AGAIN" {
		t.Errorf("%+v, %v", answer, err)
	}
	client.Close()
	if err := <-served; err != nil || len(complaints) != 1 {
		t.Errorf("%v, complaints %v", err, complaints)
	}
}
