package broker

import (
	"context"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// IssueAppKey makes a new access key for an application, which need not have had
// one. What cannot be recorded is not issued.
func (b *Broker) IssueAppKey(ctx context.Context, call Call, app string) (key keyring.AppKey, secret string, err error) {
	ctx = withCall(ctx, call)
	event := audit.Event{Action: audit.AppIssue}
	key, secret, err = func() (keyring.AppKey, string, error) {
		if err := authz.CheckApp(app); err != nil {
			return keyring.AppKey{}, "", failure.New(failure.Invalid, "APP_NAME", "the name of an application: %v", err)
		}
		event.Details = map[string]string{audit.DetailApp: app}
		return b.Keyring.IssueAppKey(app, b.Now())
	}()
	if err == nil {
		event.Details[audit.DetailAccessKey] = key.ID
	}
	if failed := b.finish(ctx, event, err); failed != nil {
		if err == nil {
			_, revokeErr := b.Keyring.RevokeAppKeys(key.ID)
			b.logLost(key, revokeErr)
		}
		return keyring.AppKey{}, "", failed
	}
	return key, secret, nil
}

// logLost tells of an access key that nobody was given and that is there all the
// same.
func (b *Broker) logLost(key keyring.AppKey, err error) {
	if err != nil {
		b.Log.Warn("an access key that nobody was given could not be taken back", "app", key.App, "access_key_id", key.ID, "error", err)
	}
}

// RevokeAppKeys ends the access key of that ID, or all of the application of that
// name, for every call that begins afterwards.
func (b *Broker) RevokeAppKeys(ctx context.Context, call Call, idOrApp string) ([]keyring.AppKey, error) {
	ctx = withCall(ctx, call)
	revoked, err := b.Keyring.RevokeAppKeys(idOrApp)
	if err != nil {
		return nil, b.finish(ctx, audit.Event{Action: audit.AppRevoke}, err)
	}
	// They are revoked, whether it can be recorded or not: no other order is safe.
	var unrecorded error
	for _, key := range revoked {
		event := audit.Event{Action: audit.AppRevoke, Details: map[string]string{audit.DetailApp: key.App, audit.DetailAccessKey: key.ID}}
		if err := b.finish(ctx, event, nil); err != nil {
			unrecorded = err
		}
	}
	return revoked, unrecorded
}

// AppKeys lists the access keys of all applications.
func (b *Broker) AppKeys() []keyring.AppKey { return b.Keyring.AppKeys("") }

// AppSecret returns an access key and its secret, for a door to verify a signature;
// false when it was revoked or never was.
func (b *Broker) AppSecret(id string) (key keyring.AppKey, secret string, ok bool) {
	return b.Keyring.AppSecret(id)
}
