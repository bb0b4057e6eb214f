package broker

import (
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/broker/audit"
	"github.com/kmsbroker/kmsbroker/broker/authz"
	"github.com/kmsbroker/kmsbroker/broker/failure"
	"github.com/kmsbroker/kmsbroker/broker/importer"
	"github.com/kmsbroker/kmsbroker/broker/keyring"
)

// twice is a key with two generations in two regions, and an alias.
func twice(t *testing.T, h *house) (key *keyring.Key, old, current map[string]string) {
	t.Helper()
	req := newKey("pay", "cn-hangzhou", "cn-shanghai")
	req.Alias = new("alias/pay")
	if _, err := h.ImportKey(t.Context(), admin, req, func(importer.Progress) {}); err != nil {
		t.Fatal(err)
	}
	key, err := h.ImportKey(t.Context(), admin, importer.Request{Kind: keyring.Rotation, Name: "pay"}, func(importer.Progress) {})
	if err != nil {
		t.Fatal(err)
	}
	old, current = map[string]string{}, map[string]string{}
	for _, cmk := range key.CMKs {
		if newest, _ := key.CurrentIn(cmk.Region); newest.KeyID == cmk.KeyID {
			current[cmk.Region] = cmk.KeyID
		} else {
			old[cmk.Region] = cmk.KeyID
		}
	}
	return key, old, current
}

func TestRefer(t *testing.T) {
	h := newHouse(t)
	key, old, current := twice(t, h)
	arn := func(id string) string { cmk, _ := key.CMK(id); return cmk.ARN }
	const home, other = "cn-hangzhou", "cn-shanghai"
	aliasARN := strings.TrimSuffix(arn(current[other]), "key/"+current[other]) + "alias/pay"
	known := func(region, cmk string) Reference { return Reference{Key: "pay", Region: region, KeyID: cmk} }
	for _, test := range []struct {
		id, region string
		want       Reference
	}{
		{"pay", "", known("", "")},
		{"pay", other, known(other, "")},
		{current[home], "", known(home, current[home])},
		{old[other], "", known(other, old[other])},
		{old[other], other, known(other, old[other])},
		{arn(current[home]), home, known(home, current[home])},
		{"alias/pay", "", known("", "")},
		{"alias/pay", other, known(other, "")},
		{aliasARN, "", known(other, "")},
		{aliasARN, other, known(other, "")},
	} {
		if got := h.Refer(test.id, test.region); got != test.want {
			t.Errorf("%s in %q is %+v, want %+v", test.id, test.region, got, test.want)
		}
	}
	for _, unknown := range [][2]string{
		{current[home], other}, {arn(current[home]), other}, {aliasARN, home}, {"alias/pa", ""}, {"alias/pay/", ""}, {"", ""}, {"acs:", ""},
		{strings.Replace(arn(current[home]), ":1", ":2", 1), ""}, {strings.Replace(aliasARN, other, home+"x", 1), ""}, {"key/" + current[home], ""},
		{"acs:kms:" + current[home], ""}, {"other", ""},
	} {
		if got := h.Refer(unknown[0], unknown[1]); got != (Reference{Key: unknown[0], Region: unknown[1]}) {
			t.Errorf("%s in %q is %+v", unknown[0], unknown[1], got)
		}
	}
}

// TestDescribeKey for those who may do something with the key.
func TestDescribeKey(t *testing.T) {
	h := newHouse(t, grant(1000, "p*", authz.Decrypt))
	_, old, current := twice(t, h)
	const home, other = "cn-hangzhou", "cn-shanghai"
	for _, test := range []struct {
		of   Reference
		want string
	}{
		{h.Refer("pay", ""), current[home]}, {h.Refer("pay", other), current[other]}, {h.Refer(old[home], ""), old[home]}, {h.Refer(old[other], ""), old[other]},
	} {
		seen, err := h.DescribeKey(t.Context(), alice, test.of)
		if err != nil || seen.KeyID != test.want {
			t.Errorf("%+v: %+v, %v", test.of, seen, err)
		}
		if r := h.lastRecord(t); r.Action != audit.KeyDescribe || r.KeyID != test.want || r.Key != "pay" || r.RequestID != seen.RequestID || r.Caller.UID != 1000 {
			t.Errorf("%+v", r)
		}
	}
	if _, err := h.DescribeKey(t.Context(), alice, h.Refer("pastry", "")); failure.KindOf(err) != failure.NotFound {
		t.Errorf("not there: %v", err)
	}
	for _, id := range []string{"pay", old[home], "other"} {
		_, err := h.DescribeKey(t.Context(), bob, h.Refer(id, ""))
		refused(t, err, "NO_GRANT")
	}
}

// FuzzRefer: whatever a caller names, it is a CMK that belongs to the key that is
// found, in the region that is found.
func FuzzRefer(f *testing.F) {
	dir := f.TempDir()
	keys, err := keyring.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	defer keys.Close()
	const region, id, arn = "cn-hangzhou", "key-hzz1", "acs:kms:cn-hangzhou:1:key/key-hzz1"
	if err := keys.Add(&keyring.Key{Name: "pay", Region: region, Alias: "alias/pay", CMKs: []keyring.CMK{{KeyID: id, ARN: arn, Region: region}}}); err != nil {
		f.Fatal(err)
	}
	b := &Broker{Config: Config{Keyring: keys}}
	for _, seed := range []string{id, arn, "pay", "alias/pay", "acs:kms:cn-hangzhou:1:alias/pay", "acs:", "key/" + id, ":", "acs:kms:x:1:key/" + id} {
		f.Add(seed, region)
		f.Add(seed, "")
	}
	f.Fuzz(func(t *testing.T, named, in string) {
		got := b.Refer(named, in)
		switch {
		case got.KeyID != "" && (got.Key != "pay" || got.KeyID != id || got.Region != region || named != id && named != arn):
			t.Fatalf("%q in %q is %+v", named, in, got)
		case in != "" && got.Region != in:
			t.Fatalf("%q in %q is in %q", named, in, got.Region)
		case got.Key != named && got.Key != "pay":
			t.Fatalf("%q is %+v", named, got)
		}
	})
}
