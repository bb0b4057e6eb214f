package emulator

import (
	"fmt"
	"net/http"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// state is the state of a key, spelled as KeyMetadata spells it.
type state string

const (
	enabled         state = "Enabled"
	disabled        state = "Disabled"
	pendingDeletion state = "PendingDeletion"
	pendingImport   state = "PendingImport"
)

// rule is what an operation is answered for a key in each state.
type rule struct {
	enabled, disabled, pendingDeletion, pendingImport *wire.Error
}

// The rows of the documentation's table "Impact of CMK states on API call". The
// operations that follow each row are named in the table of operations.
var (
	usable     = rule{allowed, inDisabled, inPendingDeletion, inPendingImport}
	readable   = rule{allowed, allowed, allowed, allowed}
	editable   = rule{allowed, allowed, inPendingDeletion, allowed}
	switchable = rule{allowed, allowed, notModified, notModified}
	alterable  = rule{allowed, allowed, notModified, allowed}
	revocable  = rule{notModified, notModified, allowed, notModified}
)

// The cells of the table. All refusals are HTTP 409.
var (
	allowed           *wire.Error
	inDisabled        = rejectedIn(disabled)
	inPendingDeletion = rejectedIn(pendingDeletion)
	inPendingImport   = rejectedIn(pendingImport)
	notModified       = &wire.Error{
		Status: http.StatusConflict, Code: "Rejected.StateModifiedFailed", Message: "Keystate modified failed.",
	}
)

func rejectedIn(s state) *wire.Error {
	return &wire.Error{
		Status: http.StatusConflict, Code: "Rejected." + string(s),
		Message: fmt.Sprintf("The request was rejected because the key state is %s.", s),
	}
}

// check says whether the rule allows an operation on a key in state s.
func (r rule) check(s state) error {
	cell := allowed
	switch s {
	case enabled:
		cell = r.enabled
	case disabled:
		cell = r.disabled
	case pendingDeletion:
		cell = r.pendingDeletion
	case pendingImport:
		cell = r.pendingImport
	}
	if cell == allowed {
		return nil // not cell: an error that holds a nil pointer is not nil
	}
	return cell
}
