package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/kmsbroker/kmsbroker/hsm/pkcs11/softhsmtest"
	"github.com/kmsbroker/kmsbroker/test/stage"
)

const recipes = "../../examples/pkcs11"

var message = []byte("what is signed\x00of +/=&\xff\n")

// TestRecipes runs the recipes as they are in their folder, in the order of their
// README, and verifies what they made with Go's own cryptography.
func TestRecipes(t *testing.T) {
	for _, way := range []struct {
		name  string
		start func(*testing.T) stage.PKCS11
	}{
		{"direct", func(t *testing.T) stage.PKCS11 { return stage.Direct(softhsmtest.New(t)) }},
		{"p11-kit", func(t *testing.T) stage.PKCS11 { return stage.P11KitServer(t, softhsmtest.New(t)) }},
		{"broker", func(t *testing.T) stage.PKCS11 { return stage.New(t, stage.Options{}).Broker() }},
	} {
		if way.name == "p11-kit" && otherClient() {
			continue
		}
		t.Run(way.name, func(t *testing.T) {
			k := &kitchen{target: way.start(t), rsa: "signer", ec: "agent"}
			for _, recipe := range []struct {
				name string
				run  func(*kitchen, *testing.T)
			}{
				{"pkcs11-tool", (*kitchen).pkcs11Tool},
				{"p11tool", (*kitchen).p11tool},
				{"openssl", (*kitchen).openssl},
				{"java", (*kitchen).java},
				{"go", (*kitchen).golang},
				{"ssh", (*kitchen).ssh},
				{"git", (*kitchen).git},
			} {
				if !t.Run(recipe.name, func(t *testing.T) { recipe.run(k, t) }) {
					return // the next ones use its keys
				}
			}
		})
	}
}

// kitchen is where recipes are tried, with the keys that the first ones make.
type kitchen struct {
	target    stage.PKCS11
	rsa, ec   string // labels
	rsaPublic *rsa.PublicKey
	ecPublic  *ecdsa.PublicKey
}

// cook runs a recipe, with the message on its standard input, and returns what it prints.
func (k *kitchen) cook(t *testing.T, dir, name string, args ...string) []byte {
	t.Helper()
	program, err := filepath.Abs(filepath.Join(recipes, name))
	if err != nil {
		t.Fatal(err)
	}
	return k.run(t, dir, program, args...)
}

func (k *kitchen) run(t *testing.T, dir, program string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	cmd.Env = append(k.target.Environ(), "MODULE="+k.target.Module, "PIN="+k.target.PIN, "LC_ALL=C")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(message), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s%s", program, args, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.Bytes()
}

func (k *kitchen) pkcs11Tool(t *testing.T) {
	dir := t.TempDir()
	k.cook(t, dir, "pkcs11-tool.sh", k.target.Token, k.rsa, dir)
	public, err := x509.ParsePKIXPublicKey(read(t, dir, "public.der"))
	if err != nil {
		t.Fatal(err)
	}
	k.rsaPublic = public.(*rsa.PublicKey)
	k.verify(t, read(t, dir, "signature"))
}

// verify verifies an RSA signature of the message.
func (k *kitchen) verify(t *testing.T, signature []byte) {
	t.Helper()
	digest := sha256.Sum256(message)
	if err := rsa.VerifyPKCS1v15(k.rsaPublic, crypto.SHA256, digest[:], signature); err != nil {
		t.Error(err)
	}
}

func (k *kitchen) p11tool(t *testing.T) {
	dir := t.TempDir()
	k.cook(t, dir, "p11tool.sh", k.target.Token, k.ec, dir)
	public, err := x509.ParsePKIXPublicKey(readPEM(t, dir, "public.pem"))
	if err != nil {
		t.Fatal(err)
	}
	k.ecPublic = public.(*ecdsa.PublicKey)
	request := readRequest(t, dir)
	if !k.ecPublic.Equal(request.PublicKey) || request.DNSNames[0] != k.ec+".example" {
		t.Errorf("a request for %v, %v", request.PublicKey, request.DNSNames)
	}
	if random := read(t, dir, "random"); len(random) != 32 || bytes.Count(random, random[:1]) == len(random) {
		t.Errorf("random bytes %x", random)
	}
}

func (k *kitchen) openssl(t *testing.T) {
	dir := t.TempDir()
	k.cook(t, dir, "openssl.sh", k.target.Token, k.rsa, dir)
	if request := readRequest(t, dir); !k.rsaPublic.Equal(request.PublicKey) {
		t.Errorf("a request for %v", request.PublicKey)
	}
	certificate, err := x509.ParseCertificate(readPEM(t, dir, "certificate.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := certificate.CheckSignature(certificate.SignatureAlgorithm, certificate.RawTBSCertificate, certificate.Signature); err != nil {
		t.Error(err)
	}
	k.verify(t, read(t, dir, "signature"))
	opened := k.run(t, dir, "openssl", "cms", "-verify", "-binary", "-in", "message.cms", "-inform", "PEM", "-CAfile", "certificate.pem")
	if !bytes.Equal(opened, message) {
		t.Errorf("the CMS message has %q", opened)
	}
}

func (k *kitchen) java(t *testing.T) { k.verify(t, k.cook(t, t.TempDir(), "java.sh", k.rsa)) }

func (k *kitchen) golang(t *testing.T) {
	program := filepath.Join(t.TempDir(), "sign")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-C", filepath.Join(recipes, "go"), "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	k.verify(t, k.run(t, t.TempDir(), program, k.target.Token, k.rsa))
}

func (k *kitchen) ssh(t *testing.T) {
	public, err := ssh.NewPublicKey(k.ecPublic)
	if err != nil {
		t.Fatal(err)
	}
	server := startSSH(t, public)
	out := k.cook(t, t.TempDir(), "ssh.sh", "-F", "none", "-p", server.port, "-o", "UserKnownHostsFile="+server.knownHosts, "someone@127.0.0.1", "whoami")
	if string(out) != "someone: whoami" {
		t.Errorf("the server said %q", out)
	}
}

func (k *kitchen) git(t *testing.T) {
	public, err := ssh.NewPublicKey(k.ecPublic)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	// What the person who runs the tests has configured does not matter here.
	for variable, value := range map[string]string{"HOME": dir, "GIT_CONFIG_NOSYSTEM": "1", "SSH_AGENT_PID": "", "SSH_AUTH_SOCK": ""} {
		t.Setenv(variable, value)
	}
	if err := os.WriteFile(filepath.Join(dir, "signers"), append([]byte(`dev@example.com namespaces="git" `), ssh.MarshalAuthorizedKey(public)...), 0o600); err != nil {
		t.Fatal(err)
	}
	k.run(t, dir, "git", "init", "-q")
	for name, value := range map[string]string{"user.name": "Dev", "user.email": "dev@example.com", "gpg.ssh.allowedSignersFile": filepath.Join(dir, "signers")} {
		k.run(t, dir, "git", "config", name, value)
	}
	k.cook(t, dir, "git.sh", k.ec, "--allow-empty", "-m", "signed")
	k.run(t, dir, "git", "verify-commit", "HEAD")
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func readPEM(t *testing.T, dir, name string) []byte {
	t.Helper()
	block, _ := pem.Decode(read(t, dir, name))
	if block == nil {
		t.Fatalf("%s has no PEM: %s", name, read(t, dir, name))
	}
	return block.Bytes
}

// readRequest reads a certificate request that is signed with the key that it is for.
func readRequest(t *testing.T, dir string) *x509.CertificateRequest {
	t.Helper()
	request, err := x509.ParseCertificateRequest(readPEM(t, dir, "request.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := request.CheckSignature(); err != nil {
		t.Error(err)
	}
	return request
}
