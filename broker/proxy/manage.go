package proxy

import (
	"bytes"
	"context"
	"slices"

	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/hsm/cryptoki"
)

// manage answers calls that are about objects and not about what keys are for.
func (a *Application) manage(ctx context.Context, s *session, call *cryptoki.Call) *cryptoki.Answer {
	if call.Function == cryptoki.CreateObject {
		return a.create(ctx, s, call)
	}
	e, rv := a.resolve(ctx, s, call.Numbers[1])
	if rv != cryptoki.CKR_OK {
		return cryptoki.Refuse(rv)
	}
	if e == nil {
		return cryptoki.Refuse(cryptoki.CKR_OBJECT_HANDLE_INVALID)
	}
	client := call.Numbers[1]
	call.Numbers[1] = e.object.handle
	switch call.Function {
	case cryptoki.CopyObject:
		return a.copyObject(ctx, s, e, call)
	case cryptoki.DestroyObject:
		return a.destroy(ctx, s, client, e, call)
	case cryptoki.SetAttributeValue:
		return a.modify(ctx, s, e, call)
	case cryptoki.GetAttributeValue:
		return a.attributes(ctx, s, e, call)
	default: // C_GetObjectSize
		answer, _ := s.token.once(ctx, a.who, e.object.device, call)
		return answer
	}
}

// target is an object that is to be, as its template names it.
type target struct {
	authz.Object
	onToken, private bool
}

// named reads what a template says of a new object, which for the rest is like another.
func named(t *token, template []cryptoki.Attribute, like target) target {
	like.Token = t.name
	for i := range template {
		switch v := &template[i]; v.Type {
		case cryptoki.CKA_LABEL:
			like.Label = string(v.Value)
		case cryptoki.CKA_ID:
			like.ID = v.Value
		case cryptoki.CKA_TOKEN:
			like.onToken, _ = v.Bool()
		case cryptoki.CKA_PRIVATE:
			like.private, _ = v.Bool()
		}
	}
	return like
}

// unnamed is what an object is that a template says nothing of: PKCS#11 leaves it to the
// token whether keys are private, and a client that is not logged in must not rely on
// it.
func unnamed(template []cryptoki.Attribute) target {
	class, _ := ulong(template, cryptoki.CKA_CLASS)
	return target{private: class == cryptoki.CKO_PRIVATE_KEY || class == cryptoki.CKO_SECRET_KEY}
}

// mayMake decides whether a session may hold a new object, and whether the client may
// make one of that name. A session object nobody else ever sees, so its name does not
// matter, only that the client may do such a thing on that token.
func (a *Application) mayMake(s *session, op authz.ObjectOperation, o target, m *cryptoki.Mechanism) cryptoki.RV {
	switch {
	case o.onToken && !s.rw:
		return cryptoki.CKR_SESSION_READ_ONLY
	case o.private && !a.loggedIn[s.token]:
		return cryptoki.CKR_USER_NOT_LOGGED_IN
	case a.reserved(o.Label, o.ID):
		return cryptoki.CKR_ATTRIBUTE_VALUE_INVALID
	case !o.onToken:
		return a.permitAnywhere(s.token, op, o.Object, m)
	default:
		return a.permit(s.token, op, o.Object, m)
	}
}

func (a *Application) create(ctx context.Context, s *session, call *cryptoki.Call) *cryptoki.Answer {
	o := named(s.token, call.Templates[0], unnamed(call.Templates[0]))
	if rv := a.mayMake(s, authz.ObjectCreate, o, nil); rv != cryptoki.CKR_OK {
		return cryptoki.Refuse(rv)
	}
	plan := plan{makes: authz.ObjectCreate, targets: []target{o}}
	return a.make(ctx, s, plan, call, deed{authz.ObjectCreate, o.Object})
}

// copyObject makes a session object that goes on to be governed by the grants on the
// original, or an object of the token that is governed by those on its own name.
func (a *Application) copyObject(ctx context.Context, s *session, e *entry, call *cryptoki.Call) *cryptoki.Answer {
	original, asked := e.named()
	if asked {
		if rv := a.permit(s.token, authz.ObjectCopy, original, nil); rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv)
		}
	}
	o := named(s.token, call.Templates[0], target{e.object.authz(s.token), e.object.onToken, e.object.private})
	// The device makes it as lasting as the original unless the template says so.
	call.Templates[0] = with(call.Templates[0], cryptoki.CKA_TOKEN, o.onToken)
	plan := plan{makes: authz.ObjectCreate, targets: []target{o}, device: e.object.device}
	deeds := []deed{{authz.ObjectCopy, original}}
	if asked && !o.onToken {
		plan.like = &original
	} else {
		if rv := a.mayMake(s, authz.ObjectCreate, o, nil); rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv)
		}
		deeds = append(deeds, deed{authz.ObjectCreate, o.Object})
	}
	return a.make(ctx, s, plan, call, deeds...)
}

// with is a template in which an attribute has a value.
func with(template []cryptoki.Attribute, attribute uint64, value bool) []cryptoki.Attribute {
	if cryptoki.Find(template, attribute) != nil {
		return template
	}
	return append(slices.Clip(template), cryptoki.BoolAttribute(attribute, value))
}

func (a *Application) destroy(ctx context.Context, s *session, handle uint64, e *entry, call *cryptoki.Call) *cryptoki.Answer {
	if e.owner != nil {
		answer := s.token.change(ctx, e.keeper, call)
		if answer.RV == cryptoki.CKR_OK {
			a.remove(handle, e)
		}
		s.token.forget(e.object.handle)
		return answer
	}
	if !s.rw {
		return cryptoki.Refuse(cryptoki.CKR_SESSION_READ_ONLY)
	}
	o := e.object.authz(s.token)
	if rv := a.permit(s.token, authz.ObjectDestroy, o, nil); rv != cryptoki.CKR_OK {
		return cryptoki.Refuse(rv)
	}
	answer, _ := s.token.once(ctx, a.who, e.object.device, call)
	if answer.RV == cryptoki.CKR_OK {
		a.remove(handle, e)
	}
	s.token.forget(e.object.handle)
	return a.done(s.token, nil, answer, deed{authz.ObjectDestroy, o})
}

func (a *Application) modify(ctx context.Context, s *session, e *entry, call *cryptoki.Call) *cryptoki.Answer {
	old := target{e.object.authz(s.token), e.object.onToken, e.object.private}
	next := named(s.token, call.Templates[0], old)
	switch {
	case old.onToken && !s.rw:
		return cryptoki.Refuse(cryptoki.CKR_SESSION_READ_ONLY)
	case a.reserved(next.Label, next.ID):
		return cryptoki.Refuse(cryptoki.CKR_ATTRIBUTE_VALUE_INVALID)
	case next.onToken != old.onToken:
		return cryptoki.Refuse(cryptoki.CKR_ATTRIBUTE_READ_ONLY)
	case e.owner != nil:
		return a.modifyOwn(ctx, s, e, call)
	}
	for _, o := range []authz.Object{old.Object, next.Object} {
		if rv := a.permit(s.token, authz.ObjectModify, o, nil); rv != cryptoki.CKR_OK {
			return cryptoki.Refuse(rv)
		}
	}
	answer, _ := s.token.once(ctx, a.who, e.object.device, call)
	s.token.forget(e.object.handle)
	deeds := []deed{{authz.ObjectModify, old.Object}}
	if next.Label != old.Label || !bytes.Equal(next.ID, old.ID) {
		deeds = append(deeds, deed{authz.ObjectModify, next.Object})
	}
	return a.done(s.token, nil, answer, deeds...)
}

// modifyOwn changes a session object.
func (a *Application) modifyOwn(ctx context.Context, s *session, e *entry, call *cryptoki.Call) *cryptoki.Answer {
	answer := s.token.change(ctx, e.keeper, call)
	s.token.forget(e.object.handle)
	if answer.RV == cryptoki.CKR_OK {
		if o, rv := s.token.describe(ctx, a.who, e.object.device, e.object.handle); rv == cryptoki.CKR_OK && o != nil {
			e.object = o
		}
	}
	return a.done(s.token, nil, answer, deed{authz.ObjectModify, e.object.authz(s.token)})
}
