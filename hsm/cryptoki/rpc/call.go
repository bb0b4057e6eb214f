package rpc

import "github.com/kmsbroker/kmsbroker/hsm/cryptoki"

// carried reports whether the parameters of a function are taken apart here. Those of
// PKCS#11 3.0 that no device of ours has are not.
func carried(f cryptoki.Function) bool {
	switch f {
	case cryptoki.LoginUser, cryptoki.SessionCancel, cryptoki.InitToken2, cryptoki.DeriveKey2:
		return true
	default:
		return f > 0 && f <= cryptoki.WaitForSlotEvent
	}
}

// AppendCall appends the body of a request.
func (v Version) AppendCall(dst []byte, call *cryptoki.Call) ([]byte, error) {
	w := writer{b: dst}
	if !carried(call.Function) {
		w.fail("%v cannot be called", call.Function)
		return dst, w.err
	}
	signature := signatures[call.Function].request
	w.uint32(uint32(call.Function))
	w.bytes([]byte(signature))
	numbers, data, templates := call.Numbers[:], call.Data[:], call.Templates[:]
	for len(signature) > 0 {
		var part string
		part, signature = next(signature)
		switch part {
		case "u":
			w.uint64(numbers[0])
			numbers = numbers[1:]
		case "y":
			w.byte(flag(call.Flag))
		case "ay":
			w.array(data[0], 0)
			data = data[1:]
		case "s", "z":
			w.bytes(data[0])
			data = data[1:]
		case "fy":
			w.byteRoom(call.Room)
		case "fu":
			w.ulongRoom(call.Room)
		case "M":
			w.mechanism(v, call.Mechanism)
		case "aA":
			w.template(templates[0])
			templates = templates[1:]
		case "fA":
			w.wanted(templates[0])
		}
	}
	return w.b, w.err
}

// ParseCall reads the body of a request. The call keeps parts of body. A function
// that has no parameters here, because nobody answers it, comes without any.
func (v Version) ParseCall(body []byte) (*cryptoki.Call, error) {
	call, err := v.parseCall(body, 0)
	if err != nil && call != nil && call.Function == cryptoki.GetAttributeValue {
		for form := roomForm(1); form < roomForms; form++ {
			if other, err := v.parseCall(body, form); err == nil {
				return other, nil
			}
		}
	}
	return call, err
}

func (v Version) parseCall(body []byte, form roomForm) (*cryptoki.Call, error) {
	r := reader{rest: body}
	call := &cryptoki.Call{Function: cryptoki.Function(r.uint32())}
	signature := r.bytes()
	switch {
	case r.err != nil:
		return nil, r.err
	case call.Function == 0 || int(call.Function) >= len(signatures):
		return nil, malformed("function %d is unknown", uint32(call.Function))
	case string(signature) != signatures[call.Function].request:
		return nil, malformed("%v has another signature", call.Function)
	case !carried(call.Function):
		return call, nil
	}
	r.parameters(v, call, form)
	return call, r.end()
}

func (r *reader) parameters(v Version, call *cryptoki.Call, form roomForm) {
	signature := signatures[call.Function].request
	numbers, data, templates := call.Numbers[:], call.Data[:], call.Templates[:]
	for len(signature) > 0 {
		var part string
		part, signature = next(signature)
		switch part {
		case "u":
			numbers[0] = r.uint64()
			numbers = numbers[1:]
		case "y":
			call.Flag = r.byte() != 0
		case "ay":
			data[0], _ = r.array()
			data = data[1:]
		case "s", "z":
			data[0] = r.bytes()
			data = data[1:]
		case "fy":
			call.Room = r.byteRoom()
		case "fu":
			call.Room = r.ulongRoom()
		case "M":
			call.Mechanism = r.mechanism(v)
		case "aA":
			templates[0] = r.template(0)
			templates = templates[1:]
		case "fA":
			templates[0] = r.wanted(0, form)
		}
	}
}

// next takes the first part off a signature.
func next(signature string) (part, rest string) {
	n := 1
	if signature[0] == 'a' || signature[0] == 'f' {
		n = 2
	}
	return signature[:n], signature[n:]
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// byteRoom is a length, 0 for a buffer that is NULL. From 0.25.0 on -1 is a buffer of
// no length.
func (r *reader) byteRoom() cryptoki.Room {
	switch n := r.uint32(); n {
	case 0:
		return cryptoki.Room{Null: true}
	case null:
		return cryptoki.Room{}
	default:
		return cryptoki.Room{Size: n}
	}
}

func (w *writer) byteRoom(room cryptoki.Room) {
	switch {
	case room.Null:
		w.uint32(0)
	case room.Size == 0:
		w.uint32(null)
	default:
		w.uint32(room.Size)
	}
}

// ulongRoom is a number of CK_ULONGs, 0 for a buffer that is NULL.
func (r *reader) ulongRoom() cryptoki.Room {
	n := r.uint32()
	return cryptoki.Room{Size: n, Null: n == 0}
}

func (w *writer) ulongRoom(room cryptoki.Room) {
	if room.Null {
		w.uint32(0)
		return
	}
	w.uint32(room.Size)
}
