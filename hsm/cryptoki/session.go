package cryptoki

import "context"

// Device is a token that is open and logged in, for those who make calls of it.
type Device interface {
	// OpenSession opens a read-write session in the user's state. CKR_SESSION_COUNT: the
	// token admits no more.
	OpenSession(ctx context.Context) (Session, error)
	// MaxSessions is how many sessions may be open at once, at least 2.
	MaxSessions() int
}

// Session is a session of a [Device]. One call at a time may be made of it.
type Session interface {
	// Do makes a call. The device puts its own session or slot in the place of
	// Numbers[0], so what the caller wrote there does not matter. Functions that are
	// about the library or about logging in are answered with
	// CKR_FUNCTION_NOT_SUPPORTED and never reach the device.
	//
	// An error means that there was no answer: the session is lost, whether the call was
	// made is unknown, and only Close may follow. What a device refuses is an Answer.
	Do(ctx context.Context, call *Call) (*Answer, error)
	// Close closes the session, with whatever operation is active on it and the session
	// objects that were made on it.
	Close() error
}

// Pipeline is a [Session] that takes a second call before it has answered the first.
type Pipeline interface {
	// DoBoth is Do for two calls, of which the second is made whatever came of the
	// first.
	DoBoth(ctx context.Context, first, second *Call) (a, b *Answer, err error)
}

// DoBoth makes two calls one after the other, at once if the session is a [Pipeline].
func DoBoth(ctx context.Context, s Session, first, second *Call) (a, b *Answer, err error) {
	if p, ok := s.(Pipeline); ok {
		return p.DoBoth(ctx, first, second)
	}
	if a, err = s.Do(ctx, first); err != nil {
		return nil, nil, err
	}
	if b, err = s.Do(ctx, second); err != nil {
		return nil, nil, err
	}
	return a, b, nil
}
