package config

import (
	"maps"
	"slices"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// KMS says where Alibaba Cloud KMS is and who the broker is there. Its zero value is
// none: a daemon without it has not been told yet.
type KMS struct {
	Default     Region
	Others      []Region // ordered by name
	Credentials Credentials
	Quota       Quota
}

// Region is the KMS of one region.
type Region struct {
	Region    string
	Endpoints []string // the preferred one first; none is the public endpoint of the region
	CAFile    string   // "" is the system's certificate authorities
	Instance  Instance
}

// Instance is a KMS instance, in which CMKs are made and used. The zero value is
// none.
type Instance struct {
	ID       string
	Endpoint string // of its dedicated gateway
	CAFile   string // of the gateway's private certificate authority
}

// Quota is how many calls a second the broker makes in each region; 0 is the
// quota that Alibaba Cloud documents.
type Quota struct {
	Crypto, Reads, Writes, CreateKey int
}

// AllRegions lists the default region and the others.
func (k KMS) AllRegions() []Region {
	if k.Default.Region == "" {
		return nil
	}
	return append([]Region{k.Default}, k.Others...)
}

func (t *table) kms() KMS {
	k := KMS{Credentials: t.credentials()}
	if t.present("region") {
		k.Default.Region = t.text("region", "")
		if err := kmsapi.CheckRegion(k.Default.Region); err != nil && t.isText("region") {
			t.problem("region", "%s: %v", t.full("region"), err)
		}
	}
	t.region(&k.Default)
	if quota, ok := t.table("quota"); ok {
		k.Quota = quota.quota()
	}
	if regions, ok := t.table("regions"); ok {
		k.Others = regions.otherRegions(k.Default.Region)
	}
	t.done()
	return k
}

// region reads what each region may have.
func (t *table) region(r *Region) {
	r.CAFile = t.absolute("ca_file", "")
	r.Endpoints = t.oneOrMore("endpoint")
	for _, endpoint := range r.Endpoints {
		if _, err := kmsapi.ParseEndpoint(endpoint); err != nil {
			t.problem("endpoint", "%s: %v", t.full("endpoint"), err)
		}
	}
	if instance, ok := t.table("instance"); ok {
		r.Instance = instance.instance()
	}
}

// oneOrMore reads a string, or an array of strings.
func (t *table) oneOrMore(key string) []string {
	if _, many := t.values[key].([]any); !many {
		if text := t.text(key, ""); text != "" {
			return []string{text}
		}
		return nil
	}
	var list []string
	for _, e := range t.array(key) {
		text, ok := e.value.(string)
		if !ok || text == "" {
			t.doc.problem(e.line, "%s must be a string or an array of strings", t.full(key))
			continue
		}
		list = append(list, text)
	}
	return list
}

func (t *table) instance() Instance {
	// The gateway's certificate is of no authority that the system knows.
	i := Instance{Endpoint: t.text("endpoint", ""), CAFile: t.required("ca_file")}
	if t.present("id") {
		i.ID = t.text("id", "")
		host, err := kmsapi.InstanceEndpoint(i.ID)
		if err != nil && t.isText("id") {
			t.problem("id", "%s: %v", t.full("id"), err)
		}
		if i.Endpoint == "" {
			i.Endpoint = host
		}
	}
	switch endpoint, err := kmsapi.ParseEndpoint(i.Endpoint); {
	case i.Endpoint == "":
	case err != nil:
		t.problem("endpoint", "%s: %v", t.full("endpoint"), err)
	case !endpoint.TLS:
		t.problem("endpoint", "%s: plaintexts would go to %s without TLS", t.full("endpoint"), i.Endpoint)
	}
	t.done()
	return i
}

func (t *table) quota() Quota {
	q := Quota{
		Crypto: t.perSecond("crypto"), Reads: t.perSecond("reads"), Writes: t.perSecond("writes"), CreateKey: t.perSecond("create_key"),
	}
	t.done()
	return q
}

func (t *table) perSecond(key string) int {
	const most = 100_000
	n, ok := read[int64](t, key, "a number of calls a second")
	if ok && (n < 1 || n > most) {
		t.problem(key, "%s must be 1 to %d calls a second, not %d", t.full(key), most, n)
		return 0
	}
	return int(n)
}

func (t *table) otherRegions(first string) []Region {
	var regions []Region
	for _, name := range slices.Sorted(maps.Keys(t.values)) {
		r := Region{Region: name}
		if err := kmsapi.CheckRegion(name); err != nil {
			t.problem(name, "%s: %v", t.full(name), err)
		}
		if name == first {
			t.problem(name, "%s is the default region, which is set in [kms] itself", t.full(name))
		}
		if sub, ok := t.table(name); ok {
			sub.region(&r)
			sub.done()
		}
		regions = append(regions, r)
	}
	return regions
}
