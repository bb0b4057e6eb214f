package authz

import (
	"encoding/hex"
	"slices"
)

// ObjectOperation is something a grant can allow on the objects of a token.
type ObjectOperation string

// The operations on objects, with the functions of PKCS#11 that they are for. An
// object that a function makes is asked about under its new name.
const (
	// ObjectFind is to see that the object is there: C_FindObjects, C_GetAttributeValue,
	// C_GetObjectSize. Every other operation that a grant allows on an object implies it,
	// and a grant that denies it hides the object and so denies all of them.
	ObjectFind    ObjectOperation = "find"
	ObjectSign    ObjectOperation = "sign"    // C_Sign…, C_SignRecover…
	ObjectVerify  ObjectOperation = "verify"  // C_Verify…, C_VerifyRecover…
	ObjectEncrypt ObjectOperation = "encrypt" // C_Encrypt…
	ObjectDecrypt ObjectOperation = "decrypt" // C_Decrypt…
	// ObjectWrap is to be the wrapping key of C_WrapKey, ObjectExport to be the key that
	// leaves the token in it.
	ObjectWrap   ObjectOperation = "wrap"
	ObjectExport ObjectOperation = "export"
	// ObjectUnwrap is to be the unwrapping key of C_UnwrapKey. The new object needs
	// ObjectCreate.
	ObjectUnwrap ObjectOperation = "unwrap"
	// ObjectDerive is to be the base key of C_DeriveKey. The new object needs
	// ObjectGenerate.
	ObjectDerive    ObjectOperation = "derive"
	ObjectDigestKey ObjectOperation = "digest-key" // C_DigestKey
	// ObjectGenerate is for new objects whose value the token makes: C_GenerateKey,
	// C_GenerateKeyPair, and those of C_DeriveKey.
	ObjectGenerate ObjectOperation = "generate"
	// ObjectCreate is for new objects whose value comes from elsewhere: C_CreateObject,
	// and those of C_UnwrapKey and C_CopyObject.
	ObjectCreate ObjectOperation = "create"
	// ObjectCopy is to be the original of C_CopyObject. The new object needs
	// ObjectCreate.
	ObjectCopy ObjectOperation = "copy"
	// ObjectModify is C_SetAttributeValue. When the label or id changes, the object needs
	// it under both names.
	ObjectModify  ObjectOperation = "modify"
	ObjectDestroy ObjectOperation = "destroy" // C_DestroyObject
)

// The operations on tokens. Labels and ids of a grant do not matter for them.
const (
	TokenRandom ObjectOperation = "random" // C_GenerateRandom, C_SeedRandom
	TokenDigest ObjectOperation = "digest" // C_Digest…, but for C_DigestKey
)

// ObjectOperations lists every operation that a grant on objects can name.
func ObjectOperations() []ObjectOperation {
	return []ObjectOperation{
		ObjectFind, ObjectSign, ObjectVerify, ObjectEncrypt, ObjectDecrypt, ObjectWrap, ObjectExport, ObjectUnwrap, ObjectDerive,
		ObjectDigestKey, ObjectGenerate, ObjectCreate, ObjectCopy, ObjectModify, ObjectDestroy, TokenRandom, TokenDigest,
	}
}

// OnToken reports whether an operation is one on a token and not on an object.
func (o ObjectOperation) OnToken() bool { return o == TokenRandom || o == TokenDigest }

// Object is an object of a token, or the one that a call would make there.
type Object struct {
	Token string // the name of the backend
	Label string // CKA_LABEL, which may have any bytes; "" if there is none
	ID    []byte // CKA_ID, nil if there is none
}

// ObjectGrant allows callers operations with the objects of tokens, or denies them.
// A caller matches when its uid, one of its groups or its unit is listed. An object
// matches when its label does, if there are Labels, and its id does, if there are
// IDs; without either a grant is about no object.
type ObjectGrant struct {
	Effect Effect
	Tokens []string // names of backends, or globs in the syntax of path.Match
	// Labels are labels or globs in the syntax of path.Match, whose * also matches
	// slashes. The empty one is the label of what has none.
	Labels []string
	// IDs are compared in the same way with the lower-case hexadecimal digits of an id.
	IDs        []string
	Operations []ObjectOperation
	UIDs       []uint32
	GIDs       []uint32 // compared with primary and supplementary groups
	Units      []string // names or globs in the syntax of path.Match
	Rate       Rate     // for each uid; zero is no limit
	// PIN is the hash of an application PIN, as package pin makes it: the grant allows
	// nothing before the application has logged in with it. "" asks for none.
	PIN string
	// At is where the grant is written, as file:line.
	At string
}

func (g *ObjectGrant) who() who { return who{uids: g.UIDs, gids: g.GIDs, units: g.Units} }

// objectRule is a grant in a policy.
type objectRule struct {
	ObjectGrant
	entry
	// about reports that it has an operation on objects, hides that it denies find.
	about, hides bool
}

func newObjectRule(index int, g ObjectGrant) *objectRule {
	r := &objectRule{ObjectGrant: g, entry: newEntry(index, g.At, g.Rate)}
	r.pin = g.PIN != ""
	r.about = slices.ContainsFunc(g.Operations, func(o ObjectOperation) bool { return !o.OnToken() })
	r.hides = g.Effect == Deny && slices.Contains(g.Operations, ObjectFind)
	return r
}

// does reports whether the rule is about an operation.
func (r *objectRule) does(op ObjectOperation) bool {
	if slices.Contains(r.Operations, op) {
		return true
	}
	return !op.OnToken() && (r.hides || op == ObjectFind && r.Effect == Allow && r.about)
}

// misses returns the first condition but the caller that an operation does not meet,
// "" for a match.
func (r *objectRule) misses(op ObjectOperation, o *Object) string {
	switch {
	case !r.does(op):
		return "operation"
	case !matchAny(r.Tokens, o.Token):
		return "token"
	case op.OnToken():
		return ""
	case len(r.Labels) > 0 && !globAny(r.Labels, o.Label):
		return "label"
	case len(r.IDs) > 0 && !matchID(r.IDs, o.ID), len(r.Labels) == 0 && len(r.IDs) == 0:
		return "id"
	default:
		return ""
	}
}

// usualID is more bytes than the digits of most ids have: they need no heap.
const usualID = 128

func matchID(patterns []string, id []byte) bool {
	var digits [usualID]byte
	return globAny(patterns, hex.AppendEncode(digits[:0], id))
}
