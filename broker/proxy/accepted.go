package proxy

import (
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// beginning is what the answer to a call that begins an operation depends on, beside the
// key. Mechanisms whose parameter may be different each time are not among them.
type beginning struct {
	function  cryptoki.Function
	mechanism uint64
	pss       cryptoki.PSS
}

// maxBeginnings bounds what is remembered of one key.
const maxBeginnings = 32

// beginningOf is that of a call with the device's handles; ok is false for one whose
// answer is not remembered.
func beginningOf(call *cryptoki.Call) (b beginning, ok bool) {
	b = beginning{function: call.Function, mechanism: call.Mechanism.Type}
	switch p := call.Mechanism.Parameter.(type) {
	case nil:
		return b, true
	case *cryptoki.PSS:
		b.pss = *p
		return b, true
	default:
		return b, false
	}
}

// keyOf is the handle of the key of a call that begins an operation; noHandle for a digest.
func keyOf(call *cryptoki.Call) uint64 {
	if call.Function == cryptoki.DigestInit {
		return noHandle
	}
	return call.Numbers[1]
}

// begins reports whether the device has lately begun such an operation with that key. It
// need not be asked again then: it is when the operation is used, together with the call
// that uses it, and until then the operation holds no session.
//
// The device is nil for a digest, which no device is asked for before.
func (c *objects) begins(device *backend.Device, call *cryptoki.Call) bool {
	b, ok := beginningOf(call)
	if !ok {
		return false
	}
	key := keyOf(call)
	if key != noHandle {
		if o, _ := c.lookUp(device, key); o == nil {
			return false // it may have changed
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return (device == nil || c.device == device) && c.accepted[key][b]
}

// accept remembers that the device has begun an operation.
func (c *objects) accept(device *backend.Device, call *cryptoki.Call) {
	b, ok := beginningOf(call)
	if !ok {
		return
	}
	key := keyOf(call)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case key == noHandle && c.device != device:
		c.restart(device)
	case key != noHandle && (c.device != device || c.known[key] == nil):
		return
	}
	if c.accepted[key] == nil || len(c.accepted[key]) >= maxBeginnings {
		c.accepted[key] = map[beginning]bool{}
	}
	c.accepted[key][b] = true
}

// refuse forgets that the device has begun an operation: it does no longer.
func (c *objects) refuse(call *cryptoki.Call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.accepted, keyOf(call))
}
