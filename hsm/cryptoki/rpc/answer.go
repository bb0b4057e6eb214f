package rpc

import "github.com/kmsbroker/kmsbroker/hsm/cryptoki"

// refusal is the signature of an answer that has a return value alone.
const refusal = "u"

// AppendAnswer appends the body of the answer to a call.
func (v Version) AppendAnswer(dst []byte, call *cryptoki.Call, a *cryptoki.Answer) ([]byte, error) {
	if !answers(call.Function, a.RV) {
		w := writer{b: dst}
		w.uint32(0)
		w.bytes([]byte(refusal))
		w.uint64(uint64(a.RV))
		return w.b, nil
	}
	w := writer{b: dst}
	signature := signatures[call.Function].response
	w.uint32(uint32(call.Function))
	w.bytes([]byte(signature))
	w.results(v, call, a)
	if w.err != nil {
		return dst, w.err
	}
	return w.b, nil
}

// answers reports whether an answer with this return value has results.
func answers(f cryptoki.Function, rv cryptoki.RV) bool {
	if !carried(f) {
		return false
	}
	switch rv {
	case cryptoki.CKR_OK:
		return true
	case cryptoki.CKR_BUFFER_TOO_SMALL:
		response := signatures[f].response
		return response == "ay" || response == "au" || f == cryptoki.GetAttributeValue
	case cryptoki.CKR_ATTRIBUTE_SENSITIVE, cryptoki.CKR_ATTRIBUTE_TYPE_INVALID:
		return f == cryptoki.GetAttributeValue
	default:
		return false
	}
}

func (w *writer) results(v Version, call *cryptoki.Call, a *cryptoki.Answer) {
	switch info := a.Info.(type) {
	case *cryptoki.LibraryInfo:
		w.libraryInfo(info)
		return
	case *cryptoki.SlotInfo:
		w.slotInfo(info)
		return
	case *cryptoki.TokenInfo:
		w.tokenInfo(info)
		return
	}
	switch call.Function {
	case cryptoki.GetInfo, cryptoki.GetSlotInfo, cryptoki.GetTokenInfo:
		w.fail("the answer to %v has no information", call.Function)
		return
	case cryptoki.GetAttributeValue:
		w.template(a.Attributes)
		w.uint64(uint64(a.RV))
		return
	case cryptoki.DeriveKey2:
		w.uint64(uint64(a.RV))
		if v < 2 || call.Mechanism == nil || !bare(call.Mechanism.Type) {
			w.byte(0) // the parameter is as it was
		}
		w.uint64(a.Numbers[0])
		return
	}
	small := a.RV == cryptoki.CKR_BUFFER_TOO_SMALL
	numbers := a.Numbers[:]
	for _, part := range signatures[call.Function].response {
		switch part {
		case 'u':
			w.uint64(numbers[0])
			numbers = numbers[1:]
		case 'a': // of bytes or numbers, the only result then
			switch {
			case signatures[call.Function].response == "ay" && small:
				w.array(nil, a.Size)
			case signatures[call.Function].response == "ay":
				w.array(a.Data, a.Size)
			case small:
				w.ulongs(nil, a.Size)
			default:
				w.ulongs(a.List, a.Size)
			}
			return
		}
	}
}

// ParseAnswer reads the body of the answer to a call. It keeps parts of body.
func (v Version) ParseAnswer(body []byte, call *cryptoki.Call) (*cryptoki.Answer, error) {
	r := reader{rest: body}
	function, signature := cryptoki.Function(r.uint32()), string(r.bytes())
	switch {
	case r.err != nil:
		return nil, r.err
	case function == 0 && signature == refusal:
		a := cryptoki.Refuse(cryptoki.RV(r.uint64()))
		if a.RV == cryptoki.CKR_OK {
			r.fail("it refuses the call with CKR_OK")
		}
		return a, r.end()
	case !carried(function) || function != call.Function || signature != signatures[function].response:
		return nil, malformed("it is not the answer to %v", call.Function)
	}
	a := &cryptoki.Answer{}
	r.results(v, call, a)
	return a, r.end()
}

func (r *reader) results(v Version, call *cryptoki.Call, a *cryptoki.Answer) {
	switch call.Function {
	case cryptoki.GetInfo:
		a.Info = r.libraryInfo()
		return
	case cryptoki.GetSlotInfo:
		a.Info = r.slotInfo()
		return
	case cryptoki.GetTokenInfo:
		a.Info = r.tokenInfo()
		return
	case cryptoki.GetAttributeValue:
		a.Attributes = r.template(0)
		dropFillers(a.Attributes, call.Templates[0])
		a.RV = cryptoki.RV(r.uint64())
		return
	case cryptoki.DeriveKey2:
		a.RV = cryptoki.RV(r.uint64())
		if v < 2 || call.Mechanism == nil || !bare(call.Mechanism.Type) {
			if r.byte() != 0 {
				r.fail("it changes the parameter of a mechanism")
			}
		}
		a.Numbers[0] = r.uint64()
		return
	}
	switch signatures[call.Function].response {
	case "ay":
		a.Data, a.Size = r.array()
		a.RV = short(a.Data == nil && a.Size > 0, call)
	case "au":
		a.List, a.Size = r.ulongs()
		a.RV = short(a.List == nil && a.Size > 0, call)
	default:
		for i := range signatures[call.Function].response {
			a.Numbers[i] = r.uint64()
		}
	}
}

// dropFillers takes away what stands in the place of a value where there was no room for
// one: a number or a byte, as these come even with a length that comes alone.
func dropFillers(attributes, asked []cryptoki.Attribute) {
	for i := range min(len(attributes), len(asked)) {
		a := &attributes[i]
		kind := kindOf(a.Type)
		if (kind == isUlong || kind == isByte) && a.Type == asked[i].Type && uint64(len(a.Value)) > asked[i].Length {
			a.Value = nil
		}
		dropFillers(a.Nested, asked[i].Nested)
	}
}

// short is the return value of an answer that is a length alone: it depends on whether
// more was asked for.
func short(isShort bool, call *cryptoki.Call) cryptoki.RV {
	if isShort && !call.Room.Null {
		return cryptoki.CKR_BUFFER_TOO_SMALL
	}
	return cryptoki.CKR_OK
}
