package conformance

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kmsbroker/kmsbroker/hsm"
)

func identityDefects() []defect {
	var everything []string
	for _, c := range Checks() {
		if !strings.HasPrefix(c.ID, "E-") && c.ID != "I-01" && c.ID != "A-01" && c.ID != "A-02" {
			everything = append(everything, c.ID)
		}
	}
	return []defect{
		{"I-01", "does not open", func(d *device) {
			d.open = func(*device) error { return hsm.Errorf(hsm.TokenGone, "no link") }
		}, append(everything, "A-01", "A-02", "E-06")},
		{"I-02", "no model", described(func(info *hsm.Info) { info.Model = "" }), nil},
		{"I-02", "firmware in words", described(func(info *hsm.Info) { info.Firmware = "newest" }), nil},
		{"I-03", "a role of its own", described(func(info *hsm.Info) { info.Role = "operator" }), nil},
		{"I-04", "a label of two lines", described(func(info *hsm.Info) { info.Label = "two\nlines" }), nil},
		{"I-05", "one session", described(func(info *hsm.Info) { info.MaxSessions = 1 }), nil},
		{"I-05", "infinity as a number", described(func(info *hsm.Info) { info.MaxSessions = 1 << 62 }), nil},
		{"I-06", "weakest first", described(func(info *hsm.Info) { slices.Reverse(info.WrappingAlgorithms) }), nil},
		{"I-06", "an algorithm of its own", described(func(info *hsm.Info) {
			info.WrappingAlgorithms = append(info.WrappingAlgorithms, "ROT13")
		}), nil},
		{"I-07", "callers share memory", func(d *device) {
			shared := hsm.WrappingAlgorithms()
			described(func(info *hsm.Info) { info.WrappingAlgorithms = shared })(d)
		}, nil},
		{"I-08", "a serial for each login", func(d *device) {
			described(func(info *hsm.Info) { info.Serial = "s" })(d)
			d.open = func(d *device) error {
				serial := rand.Text()
				described(func(info *hsm.Info) { info.Serial = serial })(d)
				return nil
			}
		}, nil},
		{"I-09", "asks in the name of its slot", func(d *device) { d.asked = &hsm.TokenID{Manufacturer: "kmsbroker", Model: "memory", Serial: "0"} }, nil},
	}
}

func keyDefects() []defect {
	looks := func(check, name string, see func(k *hsm.Key)) defect {
		return defect{check, name, func(d *device) { d.see = see }, nil}
	}
	return []defect{
		looks("G-01", "AES-128", func(k *hsm.Key) { k.Bits = 128 }),
		looks("G-02", "labels in capitals", func(k *hsm.Key) { k.Label = strings.ToUpper(k.Label) }),
		looks("G-03", "not sensitive", func(k *hsm.Key) { k.Sensitive = false }),
		looks("G-03", "once not sensitive", func(k *hsm.Key) { k.AlwaysSensitive = false }),
		looks("G-03", "public", func(k *hsm.Key) { k.Private = false }),
		looks("G-04", "not extractable", func(k *hsm.Key) { k.Extractable = false }),
		looks("G-04", "never extractable", func(k *hsm.Key) { k.NeverExtractable = true }),
		looks("G-05", "imported", func(k *hsm.Key) { k.Local = false }),
		looks("G-06", "wraps and decrypts", func(k *hsm.Key) { k.Wrap, k.Decrypt = true, true }),
		looks("G-07", "unwraps", func(k *hsm.Key) { k.Unwrap = true }),
		looks("G-07", "does not encrypt", func(k *hsm.Key) { k.Encrypt = false }),
		{"G-08", "a repeat replaces the key", func(d *device) {
			d.generate = func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error) {
				_, missing := s.Token.Key(ctx, spec.ID)
				key, err := s.Token.GenerateKey(ctx, spec)
				if err == nil && missing == nil {
					s.Replace(spec.ID, []byte(rand.Text() + rand.Text())[:32])
				}
				return key, err
			}
		}, nil},
		{"G-09", "repeats that meet make twins", twins, nil},
		{"G-10", "long labels are cut", func(d *device) {
			d.generate = func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error) {
				spec.Label = spec.Label[:min(len(spec.Label), 64)]
				return s.Token.GenerateKey(ctx, spec)
			}
		}, nil},
		{"G-10", "refuses, and makes the key", func(d *device) {
			d.generate = func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error) {
				key, err := s.Token.GenerateKey(ctx, spec)
				if strings.HasSuffix(spec.Label, "\n") {
					_, _ = s.Token.GenerateKey(ctx, hsm.KeySpec{ID: spec.ID, Label: "without it"})
				}
				return key, err
			}
		}, nil},
		{"G-11", "IDs are made lower-case", func(d *device) {
			d.generate = func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error) {
				spec.ID = hsm.KeyID(strings.ToLower(string(spec.ID)))
				return s.Token.GenerateKey(ctx, spec)
			}
		}, nil},
		{"G-12", "takes keys of others for its own", func(d *device) {
			d.generate = func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error) {
				if key, err := s.Token.Key(ctx, spec.ID); err == nil && key.Label == "planted" {
					return key, nil
				}
				return s.Token.GenerateKey(ctx, spec)
			}
		}, nil},
	}
}

// twins lets two generations under one ID both make a key when they overlap.
func twins(d *device) {
	var mu sync.Mutex
	running := map[hsm.KeyID]int{}
	twin := map[hsm.KeyID]bool{}
	d.generate = func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error) {
		mu.Lock()
		running[spec.ID]++
		if running[spec.ID] > 1 {
			twin[spec.ID] = true
		}
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		running[spec.ID]--
		mu.Unlock()
		return s.Token.GenerateKey(ctx, spec)
	}
	d.keys = func(ctx context.Context, s *session) ([]hsm.Key, error) {
		keys, err := s.Token.Keys(ctx)
		mu.Lock()
		defer mu.Unlock()
		var list []hsm.Key
		for _, k := range keys {
			list = append(list, k)
			if twin[k.ID] {
				list = append(list, k)
			}
		}
		return list, err
	}
}

func relisted(change func(keys []hsm.Key) []hsm.Key) func(d *device) {
	return func(d *device) {
		d.keys = func(ctx context.Context, s *session) ([]hsm.Key, error) {
			keys, err := s.Token.Keys(ctx)
			return change(keys), err
		}
	}
}

// known remembers which keys the device ever had.
func known(d *device) func(id hsm.KeyID) bool {
	var mu sync.Mutex
	had := map[hsm.KeyID]bool{}
	d.generate = func(ctx context.Context, s *session, spec hsm.KeySpec) (*hsm.Key, error) {
		key, err := s.Token.GenerateKey(ctx, spec)
		if err == nil {
			mu.Lock()
			defer mu.Unlock()
			had[spec.ID] = true
		}
		return key, err
	}
	return func(id hsm.KeyID) bool {
		mu.Lock()
		defer mu.Unlock()
		return had[id]
	}
}
