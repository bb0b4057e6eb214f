package reliable

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// What must never be seen. Lengths are such that base64 of some needs no padding
// and could pass for a code or an ID.
var (
	secretPlaintext = []byte("attack at dawn, said the plaintext: +/=~*.")
	secretMaterial  = bytes.Repeat([]byte("wrapped material "), 16)
	secretToken     = bytes.Repeat([]byte("import token "), 16)
	secretContext   = "the tenant of the encryption context"
	secretBlob      = base64.StdEncoding.EncodeToString([]byte("a ciphertext blob that only its owner may have.."))
	credentials     = kmsapi.Credentials{
		AccessKeyID: "LTAIexample", AccessKeySecret: "the secret of the access key", SecurityToken: "the token of STS+/=~*",
	}
)

// telling is how much of a secret must not be seen.
const telling = 16

// forbidden is every part of a secret in every form that must not be seen.
var forbidden = func() map[string]bool {
	parts := map[string]bool{}
	for _, secret := range []string{
		string(secretPlaintext), string(secretMaterial), string(secretToken), secretContext, secretBlob,
		credentials.AccessKeySecret, credentials.SecurityToken,
	} {
		encoded := base64.StdEncoding.EncodeToString([]byte(secret))
		for _, form := range []string{
			secret, encoded, fmt.Sprintf("%x", secret), fmt.Sprintf("%d", []byte(secret)), url.QueryEscape(secret), url.QueryEscape(encoded),
			url.QueryEscape(url.QueryEscape(secret)), url.QueryEscape(url.QueryEscape(encoded)),
		} {
			for i := range len(form) - telling + 1 {
				parts[form[i:i+telling]] = true
			}
		}
	}
	return parts
}()

// leaks finds a part of a secret in a text.
func leaks(text string) string {
	for i := range len(text) - telling + 1 {
		if part := text[i : i+telling]; forbidden[part] {
			return part
		}
	}
	return ""
}

// secretArguments fills in what an operation takes, and tells whether there is a
// secret in it.
func secretArguments(ctx context.Context, m reflect.Type) (args []reflect.Value, secret bool) {
	pairs := map[string]string{"tenant": secretContext}
	args = []reflect.Value{reflect.ValueOf(ctx)}
	for i := 1; i < m.NumIn(); i++ {
		arg := reflect.New(m.In(i)).Elem()
		secret = true
		switch req := arg.Addr().Interface().(type) {
		case *kmsapi.EncryptRequest:
			*req = kmsapi.EncryptRequest{KeyID: "k", Plaintext: secretPlaintext, Context: pairs}
		case *kmsapi.DecryptRequest:
			*req = kmsapi.DecryptRequest{CiphertextBlob: secretBlob, Context: pairs}
		case *kmsapi.DataKeyRequest:
			*req = kmsapi.DataKeyRequest{KeyID: "k", Context: pairs}
		case *kmsapi.ImportKeyMaterialRequest:
			*req = kmsapi.ImportKeyMaterialRequest{KeyID: "k", EncryptedKeyMaterial: secretMaterial, ImportToken: secretToken}
		default:
			secret = false
		}
		args = append(args, arg)
	}
	return args, secret
}

type fault func(w http.ResponseWriter, r *http.Request)

// echoes is how many calls it takes until an echo has repeated everything.
const echoes = 24

// echo makes faults that repeat the secret parameters of a request, one after the
// other, whole and in part, as they are, escaped and decoded.
func echo(format string, answer func(w http.ResponseWriter, echoed string)) fault {
	var calls sync.Map // of each operation
	return func(w http.ResponseWriter, r *http.Request) {
		form := r.PostForm
		values := []string{form.Encode(), "server string to sign is:POST&%2F&" + url.QueryEscape(form.Encode())}
		for _, name := range []string{"Plaintext", "EncryptedKeyMaterial", "ImportToken", "CiphertextBlob", "EncryptionContext", "SecurityToken", "Signature"} {
			value := form.Get(name)
			if value == "" {
				continue
			}
			values = append(values, value, url.QueryEscape(value), url.QueryEscape(url.QueryEscape(value)), value[len(value)/2:])
			if data, err := base64.StdEncoding.DecodeString(value); err == nil {
				values = append(values, string(data))
			}
			if name == "EncryptionContext" {
				values = append(values, secretContext)
			}
		}
		if len(values) > echoes {
			panic("not every value gets its turn")
		}
		n, _ := calls.LoadOrStore(form.Get("Action"), new(atomic.Int64))
		answer(w, fmt.Sprintf(format, values[int(n.(*atomic.Int64).Add(1))%len(values)]))
	}
}

func errorAnswer(status int) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, echoed string) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]string{"Code": "InvalidParameter", "Message": echoed, "RequestId": "r"})
	}
}

// hijack answers with bytes that need not be HTTP, and closes or resets.
func hijack(w http.ResponseWriter, answer string, linger int) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(linger)
	}
	io.WriteString(conn, answer)
}

func rawAnswer(format string) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, echoed string) {
		hijack(w, strings.ReplaceAll(format, "%s", echoed), -1)
	}
}

func text(format string, status int) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, echoed string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, format, echoed)
	}
}

// secretAnswer holds secrets where the answers of the service have them.
func secretAnswer(format string) fault {
	return func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, format, base64.StdEncoding.EncodeToString(secretPlaintext), base64.StdEncoding.EncodeToString(secretToken))
	}
}

var faults = map[string]fault{
	"reset": func(w http.ResponseWriter, _ *http.Request) { hijack(w, "", 0) },
	"reset mid-answer": func(w http.ResponseWriter, _ *http.Request) {
		hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"Plaintext\":\""+base64.StdEncoding.EncodeToString(secretPlaintext), 0)
	},
	"hang":                       func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	"HTML 502":                   echo("<html>%s</html>", text("%s", 502)),
	"message of 400":             echo("The specified parameter %s is not valid.", errorAnswer(400)),
	"message of 409":             echo("%s", errorAnswer(409)),
	"message of 429":             echo("slow down, %s", errorAnswer(429)),
	"message of 503":             echo("out of order: %s", errorAnswer(503)),
	"code":                       echo("%s", text(`{"Code":"%s","Message":"m","RequestId":"r"}`, 400)),
	"request ID":                 echo("%s", text(`{"Code":"X","Message":"m","RequestId":"%s"}`, 400)),
	"request ID of a success":    echo("%s", text(`{"RequestId":"%s"}`, 200)),
	"malformed JSON":             echo("%s", text(`{"RequestId":"r",%s`, 200)),
	"malformed JSON of an error": echo("%s", text(`{"Code":%s`, 500)),
	"wrong types":                echo("%s", text(`{"RequestId":["%s"],"KeyId":{"%[1]s":1}}`, 200)),
	"header": echo("%s", func(w http.ResponseWriter, echoed string) {
		w.Header().Set("X-Acs-Request-Id", echoed)
		text(`{"Code":"X","Message":"%.0sm"}`, 400)(w, echoed)
	}),
	"redirect": echo("https://elsewhere.example/?%s", func(w http.ResponseWriter, echoed string) {
		w.Header().Set("Location", echoed)
		w.WriteHeader(302)
	}),
	"status line":       echo("%s", rawAnswer("HTTP/1.1 %s\r\n\r\n")),
	"status":            echo("%s", rawAnswer("HTTP/1.1 200%s OK\r\n\r\n")),
	"not HTTP":          echo("%s", rawAnswer("%s\r\n\r\n")),
	"header line":       echo("%s", rawAnswer("HTTP/1.1 200 OK\r\n%s\r\n\r\n")),
	"content length":    echo("%s", rawAnswer("HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n")),
	"transfer encoding": echo("%s", rawAnswer("HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n")),
	"chunk":             echo("%s", rawAnswer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n")),

	"answer without a request ID": secretAnswer(`{"KeyId":"k","Plaintext":"%s","CiphertextBlob":"b","ImportToken":"%s"}`),
	"answer of wrong types":       secretAnswer(`{"RequestId":"r","KeyId":"k","Plaintext":["%s"],"ImportToken":{"%s":"%[2]s"},"KeyMetadata":"%[1]s"}`),
	"answer that is not base64":   secretAnswer(`{"RequestId":"r","KeyId":"k","Plaintext":"%s!","ImportToken":"!%s"}`),
	"answer of wrong values": secretAnswer(`{"RequestId":"r","KeyMetadata":{"KeyId":"k","KeyState":"%[1]s","CreationDate":"%[1]s"},"KeyId":"k","Plaintext":"%[1]s",` +
		`"PublicKey":"%[2]s","ImportToken":"%[2]s","TokenExpireTime":"%[2]s"}`),
	"answer cut short":   secretAnswer(`{"RequestId":"r","KeyId":"k","Plaintext":"%s","ImportToken":"%s`),
	"answer with a code": secretAnswer(`{"RequestId":"r","Code":"X","Message":"m","Plaintext":"%s","ImportToken":"%s"}`),
}

// everything collects what a program could print.
type everything struct {
	mu    sync.Mutex
	lines map[string]string // by a value's plain form
}

func (e *everything) add(values ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, v := range values {
		plain := fmt.Sprintf("%T %+v", v, v)
		if e.lines[plain] != "" {
			continue
		}
		var text bytes.Buffer
		fmt.Fprintf(&text, "%v\n%+v\n%#v\n%q\n", v, v, v, v)
		if data, err := json.Marshal(v); err == nil {
			text.Write(data)
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&text, nil), slog.NewJSONHandler(&text, nil)} {
			r := slog.Record{Message: "x"}
			r.Add("v", v)
			h.Handle(context.Background(), r)
		}
		e.lines[plain] = text.String()
	}
}

func (e *everything) addError(err error) {
	for ; err != nil; err = errors.Unwrap(err) {
		e.add(err)
		//nolint:errorlint // each link of the chain is printed by itself
		if k, ok := err.(*kmsapi.Error); ok {
			e.add(*k, k.Code, k.Message, k.RequestID)
		}
	}
}

func (e *everything) Attempted(a Attempt) {
	a.Took = 0
	e.add(a)
}

func (e *everything) Called(c Call) {
	c.Took, c.Waited = 0, 0
	e.add(c)
}

func (e *everything) CircuitChanged(endpoint string, state State) { e.add(endpoint, state) }

// TestNothingLeaks drives every operation into every fault, with secrets in all
// that it sends and receives, and greps everything that could be printed.
func TestNothingLeaks(t *testing.T) {
	printed := capture(t)
	t.Run("faults", func(t *testing.T) {
		for name, f := range faults {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if err := r.ParseForm(); err != nil {
						t.Error(err)
					}
					f(w, r)
				}))
				server.Config.ErrorLog = log.New(io.Discard, "", 0)
				server.Start()
				defer server.Close()
				everyOperation(t, server.URL, !strings.HasPrefix(name, "answer"))
			})
		}
		t.Run("no connection", func(t *testing.T) {
			server := httptest.NewServer(nil)
			server.Close()
			everyOperation(t, server.URL, true)
		})
		t.Run("no trust", func(t *testing.T) {
			server := httptest.NewUnstartedServer(nil)
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			defer server.Close()
			everyOperation(t, server.URL, true)
		})
	})
	if text := printed(); leaks(text) != "" {
		t.Errorf("%q was printed:\n%s", leaks(text), text)
	}
}

// everyOperation calls all operations through an endpoint: first without help, as
// often as an echo needs, and then until a circuit would be open.
func everyOperation(t *testing.T, endpoint string, fails bool) {
	const attempt = 50 * time.Millisecond
	kms, err := kmsapi.NewClient(kmsapi.ClientConfig{
		Region: "cn-hangzhou", Endpoint: endpoint, Credentials: kmsapi.StaticCredentials(credentials), Timeout: attempt,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer kms.Close()
	var wg sync.WaitGroup
	for _, name := range methods() {
		wg.Go(func() {
			seen := &everything{lines: map[string]string{}}
			call := func(kms kmsapi.KMS) {
				m := reflect.ValueOf(kms).MethodByName(name)
				args, secret := secretArguments(t.Context(), m.Type())
				n := 1
				if _, helped := kms.(*Client); helped {
					n = failuresToOpen + 1
				} else if secret {
					n = echoes
				}
				for range n {
					err, _ := reflect.TypeAssert[error](m.Call(args)[1])
					if fails && err == nil {
						t.Errorf("%s works", name)
					}
					seen.addError(err)
				}
			}
			call(kms)
			c := newClient(t, Config{
				Endpoints: []Endpoint{{Name: kms.Endpoint().String(), KMS: kms}}, Observer: seen, CallTimeout: 3 * attempt, AttemptTimeout: attempt,
			})
			call(c)
			status := c.Status()
			seen.add(status, status.Endpoints)
			for _, line := range seen.lines {
				if part := leaks(line); part != "" {
					t.Errorf("%s: %q leaks in:\n%s", name, part, line)
				}
			}
		})
	}
	wg.Wait()
}

// capture takes everything that the process prints, and gives it back.
func capture(t *testing.T) func() string {
	file, err := os.CreateTemp(t.TempDir(), "printed")
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, logged := os.Stdout, os.Stderr, log.Writer()
	restore := func() {
		os.Stdout, os.Stderr = stdout, stderr
		log.SetOutput(logged)
	}
	os.Stdout, os.Stderr = file, file
	log.SetOutput(file)
	t.Cleanup(restore)
	return func() string {
		restore()
		data, err := os.ReadFile(file.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
}
