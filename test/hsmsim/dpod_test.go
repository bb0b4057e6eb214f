package hsmsim_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"github.com/kmsbroker/kmsbroker/test/hsmsim"
)

// quick takes the latency of the network out.
func quick(more ...hsmsim.Option) []hsmsim.Option {
	return append([]hsmsim.Option{hsmsim.Set("latency_min_ms", "0"), hsmsim.Set("latency_max_ms", "0")}, more...)
}

func TestBehaviour25Cloud(t *testing.T) {
	d := start(t, hsmsim.DPoD, hsmsim.Partition("on-premises"), hsmsim.Set("hybrid_label", "on-premises"))
	ids := d.slots(true)
	if !slices.Equal(ids, []uint{0, 3}) {
		t.Fatalf("slots %v, want Luna at 0 and the service at 3", ids)
	}
	began := time.Now()
	cloud, err := d.GetTokenInfo(3)
	if err != nil || cloud.Model != "Cryptovisor7" || cloud.Label != d.sim.Label {
		t.Errorf("slot 3: %+v, %v", cloud, err)
	}
	if took := time.Since(began); took < 20*time.Millisecond {
		t.Errorf("a call to the service took %v, want 20 ms at least", took)
	}
	if luna, err := d.GetTokenInfo(0); err != nil || luna.Model != "LunaSA 7.2.0" || luna.Label != "on-premises" {
		t.Errorf("slot 0: %+v, %v", luna, err)
	}
	session := d.login()
	public, private := d.wrapper(session, 2048)
	key := d.generate(session)
	_, err = d.WrapKey(session, pkcs1(), public, key)
	want(t, "CKM_RSA_PKCS, because FIPS mode is the default", err, p11.CKR_MECHANISM_INVALID)
	blob, err := d.WrapKey(session, oaep(p11.CKM_SHA256, p11.CKG_MGF1_SHA256, nil), public, key)
	if err != nil {
		t.Fatal(err)
	}
	openOAEP(t, private, blob, p11.CKM_SHA256, nil)
}

func TestBehaviour26TokenExpired(t *testing.T) {
	d := start(t, hsmsim.DPoD, quick(hsmsim.Set("jwt_refresh_ms", "50"))...)
	session := d.login()
	d.sim.JWTExpired()
	began := time.Now()
	_, err := d.GenerateRandom(session, 1)
	want(t, "the call that fetches a token", err, p11.CKR_OK)
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("it took %v, want the time of a refresh", took)
	}
	if d.sim.Pending("jwt") {
		t.Error("the token is still expired")
	}
}

func TestBehaviour26IdentityServiceDown(t *testing.T) {
	for setting, code := range map[string]uint{"0x30": p11.CKR_DEVICE_ERROR, "0x8000001F": ckrUnableToConnect} {
		d := start(t, hsmsim.DPoD, quick(hsmsim.Set("offline_code", setting), hsmsim.Set("receive_timeout_ms", "1"))...)
		session := d.login()
		d.sim.IdentityOffline()
		for range 2 {
			_, err := d.GenerateRandom(session, 1)
			want(t, "offline", err, code)
		}
		d.sim.IdentityOnline()
		_, err := d.GenerateRandom(session, 1)
		want(t, "back without C_Initialize", err, code)
		d.again()
		d.login()
		want(t, "C_Finalize", d.Finalize(), p11.CKR_OK)
	}
}

func TestBehaviour26Failover(t *testing.T) {
	d := start(t, hsmsim.DPoD, quick()...)
	session := d.login()
	d.sim.Inject("*", p11.CKR_DEVICE_ERROR, 1)
	_, err := d.GenerateRandom(session, 1)
	want(t, "the call that finds the old address", err, p11.CKR_DEVICE_ERROR)
	_, err = d.GenerateRandom(session, 1)
	want(t, "the next one", err, p11.CKR_OK)
}

func TestBehaviour27ClientDirectory(t *testing.T) {
	rewrite := func(old, new string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, "Chrystoki.conf")
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(content), old) {
				t.Fatalf("Chrystoki.conf has no %q", old)
			}
			if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(content), old, new)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, test := range map[string]struct {
		spoil func(t *testing.T, dir string)
		slots int
	}{
		"complete":                         {func(*testing.T, string) {}, 1},
		"no REST section":                  {rewrite("REST = {", "REST2 = {"), 0},
		"no XTC section":                   {rewrite("XTC = {", "XTC2 = {"), 0},
		"no server name":                   {rewrite("ServerName =", "ServerNick ="), 0},
		"no server-certificate.pem":        {remove("server-certificate.pem"), 0},
		"no partition-ca-certificate.pem":  {remove("partition-ca-certificate.pem"), 0},
		"no partition-certificate.pem":     {remove("partition-certificate.pem"), 0},
		"a certificate that is not a file": {rewrite("/server-certificate.pem", "/"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			sim := hsmsim.New(t, hsmsim.DPoD, quick()...)
			test.spoil(t, sim.Dir)
			d := load(t, sim)
			d.initialize()
			defer d.Finalize()
			if got := d.slots(false); len(got) != test.slots {
				t.Errorf("slots %v, want %d", got, test.slots)
			}
		})
	}
}

func TestBehaviour28SlotsComeAndGo(t *testing.T) {
	sim := hsmsim.New(t, hsmsim.DPoD, quick(hsmsim.Partition("second"))...)
	sim.Hide("second")
	d := load(t, sim)
	d.initialize()
	defer d.Finalize()
	if got := d.slots(true); !slices.Equal(got, []uint{3}) {
		t.Fatalf("slots %v, want 3", got)
	}
	session := d.login()
	sim.Show("second")
	if got := d.slots(true); !slices.Equal(got, []uint{3, 4}) {
		t.Errorf("slots with the new partition: %v, want 3 and 4", got)
	}
	if info, err := d.GetTokenInfo(4); err != nil || info.Label != "second" {
		t.Errorf("the new slot: %+v, %v", info, err)
	}
	_, err := d.GenerateRandom(session, 1)
	want(t, "the first partition", err, p11.CKR_OK)

	sim.Delete("second")
	if got := d.slots(true); !slices.Equal(got, []uint{3, 4}) {
		t.Errorf("slots after the deletion: %v, want 3 and 4", got)
	}
	_, err = d.OpenSession(4, readWrite)
	want(t, "C_OpenSession", err, p11.CKR_TOKEN_NOT_PRESENT)
	_, err = d.GetTokenInfo(4)
	want(t, "C_GetTokenInfo", err, p11.CKR_TOKEN_NOT_PRESENT)
}
