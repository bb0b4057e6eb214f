// Package client lets a local application encrypt and decrypt through
// kmsbrokerd. There is no login and no secret: the daemon asks the kernel who
// holds the other end of the socket, and its grants decide.
//
//	c, err := client.New("")
//	...
//	defer c.Close()
//	sealed, err := c.Encrypt(ctx, "payments", secret, nil)
//	...
//	opened, err := c.Decrypt(ctx, sealed.CiphertextBlob, nil)
//
// [Client.Encrypt] asks KMS each time and takes 6144 bytes. [Client.Seal] and
// [Client.SealStream] make messages of any length that need KMS seldom.
//
// A call whose context has no deadline ends after [DefaultTimeout]. A daemon that
// is restarted is waited for, so that an application sees a slow call and no
// failed one; every call here may be repeated. Nobody who was never reached is
// waited for.
package client

import (
	"context"
	"time"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

// DefaultSocket is where the packaged daemon listens for applications.
const DefaultSocket = "/run/kmsbroker/kms.sock"

// DefaultTimeout bounds calls whose context has no deadline. It is more than the
// daemon gives a call.
const DefaultTimeout = 70 * time.Second

// Client speaks to the application socket. Its methods may be called
// concurrently; every failure is an [*Error].
type Client struct {
	conn   *Conn
	crypto v1.CryptoClient
	region string
}

// New returns a client of the socket at path, or at DefaultSocket when path is
// empty. It connects at the first call, and again when the daemon was
// restarted.
func New(path string) (*Client, error) {
	if path == "" {
		path = DefaultSocket
	}
	conn, err := Dial(path)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, crypto: v1.NewCryptoClient(conn)}, nil
}

// In returns a client of the same connection whose calls are for one region: a
// key may have CMKs in several, and KMS opens a blob only where it was made. "" is
// the key's home region.
func (c *Client) In(region string) *Client {
	there := *c
	there.region = region
	return &there
}

// Close drops the connection. Calls in flight fail.
func (c *Client) Close() error { return c.conn.Close() }

// Encrypted is what Encrypt made.
type Encrypted struct {
	Key            string // the broker's name of the key
	KeyID          string // the CMK behind it
	CiphertextBlob string // base64, opaque; keep it, it is all that Decrypt needs
	RequestID      string // Alibaba Cloud's
}

// Encrypt encrypts up to 6144 bytes with a key. The encryption context is
// authenticated but not stored: Decrypt needs the same entries.
func (c *Client) Encrypt(ctx context.Context, key string, plaintext []byte, encryptionContext map[string]string) (*Encrypted, error) {
	answer, err := call(ctx, c, c.crypto.Encrypt, &v1.EncryptRequest{
		Key: key, Region: c.region, Plaintext: plaintext, EncryptionContext: encryptionContext,
	})
	if err != nil {
		return nil, err
	}
	return encrypted(answer), nil
}

// sealed is what all answers with a ciphertext have.
type sealed interface {
	GetKey() string
	GetKeyId() string
	GetCiphertextBlob() string
	GetRequestId() string
}

func encrypted(answer sealed) *Encrypted {
	return &Encrypted{
		Key: answer.GetKey(), KeyID: answer.GetKeyId(), CiphertextBlob: answer.GetCiphertextBlob(), RequestID: answer.GetRequestId(),
	}
}

// Decrypted is what Decrypt opened.
type Decrypted struct {
	Key       string
	KeyID     string
	Plaintext []byte
	RequestID string
}

// Decrypt opens a blob that Encrypt made with any key the caller may decrypt
// with.
func (c *Client) Decrypt(ctx context.Context, ciphertextBlob string, encryptionContext map[string]string) (*Decrypted, error) {
	return c.DecryptWith(ctx, "", ciphertextBlob, encryptionContext)
}

// DecryptWith is Decrypt, refused unless the named key made the blob.
func (c *Client) DecryptWith(ctx context.Context, key, ciphertextBlob string, encryptionContext map[string]string) (*Decrypted, error) {
	answer, err := call(ctx, c, c.crypto.Decrypt, &v1.DecryptRequest{
		Key: key, Region: c.region, CiphertextBlob: ciphertextBlob, EncryptionContext: encryptionContext,
	})
	if err != nil {
		return nil, err
	}
	return decrypted(answer), nil
}

func decrypted(answer *v1.DecryptResponse) *Decrypted {
	return &Decrypted{
		Key: answer.GetKey(), KeyID: answer.GetKeyId(), Plaintext: answer.GetPlaintext(), RequestID: answer.GetRequestId(),
	}
}

// ReEncrypted is a blob that ReEncrypt moved.
type ReEncrypted struct {
	Encrypted
	SourceKeyID string // the CMK that it was encrypted with before
	Unchanged   bool   // it was there already
}

// ReEncrypt moves a blob to the current CMK of a key, after the key was rotated or
// to another key. The plaintext stays in the daemon. The blob is opened in the
// region of from, which may be c itself.
func (c *Client) ReEncrypt(ctx context.Context, from *Client, key, ciphertextBlob string, encryptionContext map[string]string) (*ReEncrypted, error) {
	answer, err := call(ctx, c, c.crypto.ReEncrypt, &v1.ReEncryptRequest{
		CiphertextBlob: ciphertextBlob, SourceContext: encryptionContext, SourceRegion: from.region,
		Key: key, Context: encryptionContext, Region: c.region,
	})
	if err != nil {
		return nil, err
	}
	return reEncrypted(answer), nil
}

func reEncrypted(answer *v1.ReEncryptResponse) *ReEncrypted {
	return &ReEncrypted{Encrypted: *encrypted(answer), SourceKeyID: answer.GetSourceKeyId(), Unchanged: answer.GetUnchanged()}
}

// DataKey is a key to encrypt data with, and itself encrypted.
type DataKey struct {
	Encrypted
	Plaintext []byte // wipe it after use; nil from GenerateDataKeyWithoutPlaintext
}

// GenerateDataKey makes a random data key of 1 to 1024 bytes under a key.
func (c *Client) GenerateDataKey(ctx context.Context, key string, bytes int, encryptionContext map[string]string) (*DataKey, error) {
	return c.dataKey(ctx, c.crypto.GenerateDataKey, key, bytes, encryptionContext)
}

// GenerateDataKeyWithoutPlaintext makes a data key for somebody else to open.
func (c *Client) GenerateDataKeyWithoutPlaintext(ctx context.Context, key string, bytes int, encryptionContext map[string]string) (*DataKey, error) {
	return c.dataKey(ctx, c.crypto.GenerateDataKeyWithoutPlaintext, key, bytes, encryptionContext)
}
