package proxy

import (
	"github.com/kmsbroker/kmsbroker/broker/backend"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// beginning is what the answer to a call that begins an operation depends on. Once the
// device has begun such an operation, it need not be asked again: it is when the operation
// is used, together with the call that uses it, and until then the operation holds none of
// its sessions.
type beginning struct {
	device *backend.Device // that knows the key; nil for a digest, which has none
	key    uint64
	manner manner
	// forgettable is one whose mechanism has a parameter that may be another each time.
	forgettable bool
}

// manner is how an operation begins.
type manner struct {
	function  cryptoki.Function
	mechanism uint64
	pss       cryptoki.PSS
}

// beginningOf is that of a call with the device's handles.
func beginningOf(device *backend.Device, call *cryptoki.Call) beginning {
	b := beginning{device: device, key: call.Numbers[1], manner: manner{function: call.Function, mechanism: call.Mechanism.Type}}
	if call.Function == cryptoki.DigestInit {
		b.key = noHandle
	}
	switch p := call.Mechanism.Parameter.(type) {
	case nil:
	case *cryptoki.PSS:
		b.manner.pss = *p
	default:
		b.forgettable = true
	}
	return b
}

// maxManners bounds what is remembered of one key.
const maxManners = 32

// begins reports whether the device has lately begun such an operation. length is that of
// a signature in bytes, 0 if it is not known: the standard has it follow from key and
// mechanism, so it is the same for all data.
func (c *objects) begins(b beginning) (length uint32, ok bool) {
	if b.forgettable {
		return 0, false
	}
	if b.key != noHandle {
		if o, _ := c.lookUp(b.device, b.key); o == nil {
			return 0, false // it may have changed
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	length, ok = c.accepted[b.key][b.manner]
	return length, ok && (b.device == nil || c.device == b.device)
}

// accept remembers that a device has begun an operation, and the length of the signature
// unless it is 0.
func (c *objects) accept(b beginning, device *backend.Device, length uint32) {
	if b.forgettable {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case b.key == noHandle && c.device != device:
		c.restart(device)
	case b.key != noHandle && (c.device != device || c.known[b.key] == nil):
		return
	}
	manners := c.accepted[b.key]
	if manners == nil || len(manners) >= maxManners {
		manners = map[manner]uint32{}
		c.accepted[b.key] = manners
	}
	manners[b.manner] = max(manners[b.manner], length)
}

// refuse forgets that a device has begun an operation with a key: it does no longer.
func (c *objects) refuse(call *cryptoki.Call) {
	key := beginningOf(nil, call).key
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.accepted, key)
}
