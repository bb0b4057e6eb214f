package broker

import (
	"context"
	"encoding/hex"
	"errors"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/envelope"
	"github.com/kmsbroker/kmsbroker/internal/tracing"
)

// MaxSealed is the longest plaintext, in bytes, that the daemon seals and opens
// itself. Longer ones the client does, so that bulk data never crosses the socket.
const MaxSealed = 64 << 10

// unknownSize is what a message counts whose length nobody knows, in bytes.
const unknownSize = 1 << 30

// Sealing asks for a new envelope.
type Sealing struct {
	Key     string
	Context map[string]string // authenticated, not stored
	// Regions in which the message shall open; none means all that the key has and
	// that answer.
	Regions []string
	// Size of the plaintext in bytes, 0 if it is not known.
	Size uint64

	ours own
}

// Opening asks for what a header names.
type Opening struct {
	Context map[string]string
	Key     string // refuse unless this is the header's; "" is any
	Region  string // ask KMS only there; "" is all that the header names

	ours own
}

// SealingKey makes the header of a new message and its key, and nothing of the data
// key leaves. The caller may wipe the answer once it is sent.
func (b *Broker) SealingKey(ctx context.Context, call Call, req Sealing) (*envelope.Message, error) {
	return b.newMessage(ctx, call, req, audit.EnvelopeKey, func(*envelope.Message) error { return nil })
}

// Seal seals a plaintext of up to MaxSealed bytes.
func (b *Broker) Seal(ctx context.Context, call Call, req Sealing, plaintext []byte) (sealed []byte, err error) {
	req.Size = uint64(len(plaintext))
	message, err := b.newMessage(ctx, call, req, audit.EnvelopeMessage, func(m *envelope.Message) error {
		sealed, err = m.Seal(plaintext)
		return err
	})
	if err != nil {
		return nil, err
	}
	message.Wipe()
	return sealed, nil
}

// newMessage is the common part, with one record for each message.
func (b *Broker) newMessage(ctx context.Context, call Call, req Sealing, form string, use func(*envelope.Message) error) (*envelope.Message, error) {
	ctx, end := tracing.Start(withApplication(ctx, call), "core seal", tracing.Key, recordable(req.Key))
	event := encryptEvent(req.Key)
	event.Details = req.ours.detailed(audit.DetailEnvelope, form)
	message, err := func() (*envelope.Message, error) {
		if _, err := b.permit(authz.Request{Caller: call.Caller, Operation: authz.Encrypt, Key: req.Key, Context: req.Context}); err != nil {
			return nil, err
		}
		if most := req.ours.limit(MaxSealed); form == audit.EnvelopeMessage && req.Size > uint64(most) {
			return nil, failure.New(failure.Invalid, "PLAINTEXT_SIZE", "the plaintext has %d bytes, the daemon seals at most %d", req.Size, most).
				WithHint("seal it as a stream, which the client does with a message key")
		}
		dataKey, err := b.sealingDataKey(ctx, req)
		if err != nil {
			return nil, err
		}
		defer clear(dataKey.Plaintext)
		event.KeyID, event.RequestID = dataKey.KeyID, dataKey.RequestID
		if !req.ours.mayBeAll(dataKey.Wrapped) {
			// It would not be opened under the KeyID that it is to have.
			return nil, failure.New(failure.Unavailable, "ROTATED", "key %q was rotated in the meantime", req.Key).WithHint("try again")
		}
		m, err := envelope.New(req.Key, dataKey.Wrapped, dataKey.Plaintext, req.ours.bound(req.Context))
		if err != nil {
			return nil, err
		}
		event.Details[audit.DetailMessage] = messageID(m.Header())
		return m, use(m)
	}()
	return b.handOut(ctx, event, message, err, end)
}

// OpeningKey hands out the key of one message.
func (b *Broker) OpeningKey(ctx context.Context, call Call, req Opening, header []byte) (*envelope.Message, string, error) {
	return b.openMessage(ctx, call, req, header, audit.EnvelopeKey, func(*envelope.Message) error { return nil })
}

// Open opens a message whose plaintext has up to MaxSealed bytes. It returns the
// name of its key as well.
func (b *Broker) Open(ctx context.Context, call Call, req Opening, message []byte) (plaintext []byte, key string, err error) {
	header, segments, err := envelope.Split(message)
	if err != nil {
		header = message // of which openMessage says what is wrong
	}
	opened, key, err := b.openMessage(ctx, call, req, header, audit.EnvelopeMessage, func(m *envelope.Message) error {
		if len(segments) > MaxSealed+envelope.Overhead(MaxSealed) {
			return failure.New(failure.Invalid, "CIPHERTEXT_SIZE", "the plaintext is longer than the %d bytes that the daemon opens", MaxSealed).
				WithHint("open it as a stream, which the client does with a message key")
		}
		plaintext, err = m.Open(segments)
		return err
	})
	if err != nil {
		clear(plaintext)
		return nil, "", err
	}
	opened.Wipe()
	return plaintext, key, nil
}

func (b *Broker) openMessage(ctx context.Context, call Call, req Opening, header []byte, form string, use func(*envelope.Message) error) (*envelope.Message, string, error) {
	ctx, end := tracing.Start(withApplication(ctx, call), "core open", tracing.Key, recordable(req.Key))
	event := audit.Event{Action: string(authz.Decrypt), Key: req.Key, Application: true, Details: req.ours.detailed(audit.DetailEnvelope, form)}
	message, err := func() (*envelope.Message, error) {
		h, err := envelope.Parse(header)
		if err != nil {
			return nil, err
		}
		event.Key, event.Details[audit.DetailMessage] = h.Key, messageID(header)
		// The claimed context decides here, and the commitment tells below whether it
		// is the true one.
		request := authz.Request{Caller: call.Caller, Operation: authz.Decrypt, Key: h.Key, Context: req.Context}
		if _, err := b.permit(request); err != nil {
			return nil, err
		}
		if req.Key != "" && req.Key != h.Key || !req.ours.mayBeAll(h.WrappedKeys) {
			return nil, foreign(request)
		}
		dataKey, err := b.openingDataKey(ctx, request, h, req.Region)
		if err != nil {
			return nil, err
		}
		defer clear(dataKey.Plaintext)
		event.KeyID, event.RequestID = dataKey.KeyID, dataKey.RequestID
		m, err := envelope.WithDataKey(header, dataKey.Plaintext, req.ours.bound(req.Context))
		if err != nil {
			return nil, err
		}
		return m, use(m)
	}()
	message, err = b.handOut(ctx, event, message, err, end)
	return message, event.Key, err
}

// handOut records how a message ended, and wipes it unless it is answered.
func (b *Broker) handOut(ctx context.Context, event audit.Event, message *envelope.Message, err error, end func(error)) (*envelope.Message, error) {
	err = b.finish(ctx, event, envelopeFailure(err))
	if end(err); err != nil {
		if message != nil {
			message.Wipe()
		}
		return nil, err
	}
	return message, nil
}

// messageID is how the trail names a message: the same when it is sealed and each
// time that it is opened.
func messageID(header []byte) string {
	return hex.EncodeToString(header[envelope.MessageIDOffset : envelope.MessageIDOffset+envelope.MessageIDSize])
}

// envelopeFailure says what a message that cannot be opened means for the caller.
func envelopeFailure(err error) error {
	kinds := []struct {
		is     error
		kind   failure.Kind
		reason string
		hint   string
	}{
		{envelope.ErrFormat, failure.Invalid, "ENVELOPE_FORMAT", "ciphertext blobs of KMS are opened by decrypt without --envelope"},
		{envelope.ErrCommitment, failure.Invalid, "ENVELOPE_MISMATCH", "give the encryption context that it was sealed with"},
		{envelope.ErrDamaged, failure.Corrupt, "ENVELOPE_DAMAGED", "fetch the message again from where it is kept"},
		{envelope.ErrContext, failure.Invalid, "CONTEXT_SIZE", ""},
	}
	for _, k := range kinds {
		if errors.Is(err, k.is) {
			f := failure.New(k.kind, k.reason, "%v", err).WithHint("%s", k.hint)
			f.Err = err
			return f
		}
	}
	return err
}
