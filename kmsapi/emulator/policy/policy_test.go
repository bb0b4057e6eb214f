package policy_test

import (
	"strings"
	"testing"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/policy"
)

func parse(t *testing.T, text string, kind policy.Kind) policy.Document {
	t.Helper()
	d, err := policy.Parse(text, kind)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// statements is a document around statements.
func statements(list ...string) string {
	return `{"Version":"1","Statement":[` + strings.Join(list, ",") + `]}`
}

const (
	key1  = "acs:kms:cn-hangzhou:1000000000000001:key/one"
	key2  = "acs:kms:cn-shanghai:1000000000000001:key/two"
	alias = "acs:kms:cn-hangzhou:1000000000000001:alias/payments"
)

func TestEvaluate(t *testing.T) {
	allowKMS := `{"Effect":"Allow","Action":"kms:*","Resource":"*"}`
	for name, tt := range map[string]struct {
		document         string
		action, resource string
		want             policy.Verdict
	}{
		"exact":                     {statements(`{"Effect":"Allow","Action":["kms:Encrypt","kms:Decrypt"],"Resource":["` + key1 + `"]}`), "kms:Decrypt", key1, policy.Allowed},
		"another action":            {statements(`{"Effect":"Allow","Action":["kms:Encrypt"],"Resource":["` + key1 + `"]}`), "kms:Decrypt", key1, policy.Silent},
		"no prefix is an action":    {statements(`{"Effect":"Allow","Action":["kms:GenerateDataKey"],"Resource":"*"}`), "kms:GenerateDataKeyWithoutPlaintext", key1, policy.Silent},
		"another key":               {statements(`{"Effect":"Allow","Action":"kms:Decrypt","Resource":"` + key1 + `"}`), "kms:Decrypt", key2, policy.Silent},
		"any region":                {statements(`{"Effect":"Allow","Action":"kms:Decrypt","Resource":"acs:kms:*:*:key/two"}`), "kms:Decrypt", key2, policy.Allowed},
		"another region":            {statements(`{"Effect":"Allow","Action":"kms:Decrypt","Resource":"acs:kms:cn-hangzhou:*:key/*"}`), "kms:Decrypt", key2, policy.Silent},
		"keys are no aliases":       {statements(`{"Effect":"Allow","Action":"kms:*","Resource":"acs:kms:*:*:key/*"}`), "kms:CreateAlias", alias, policy.Silent},
		"aliases":                   {statements(`{"Effect":"Allow","Action":"kms:*","Resource":"acs:kms:*:*:alias/pay*"}`), "kms:CreateAlias", alias, policy.Allowed},
		"question mark":             {statements(`{"Effect":"Allow","Action":"kms:?ncrypt","Resource":"acs:kms:*:*:key/???"}`), "kms:Encrypt", key1, policy.Allowed},
		"question mark is one":      {statements(`{"Effect":"Allow","Action":"kms:Encryp?t","Resource":"*"}`), "kms:Encrypt", key1, policy.Silent},
		"deny beats a later allow":  {statements(`{"Effect":"Deny","Action":"kms:Decrypt","Resource":"*"}`, allowKMS), "kms:Decrypt", key1, policy.Denied},
		"deny beats an earlier one": {statements(allowKMS, `{"Effect":"Deny","Action":"kms:Decrypt","Resource":"*"}`), "kms:Decrypt", key1, policy.Denied},
		"deny of something else":    {statements(allowKMS, `{"Effect":"Deny","Action":"kms:Decrypt","Resource":"*"}`), "kms:Encrypt", key1, policy.Allowed},
	} {
		t.Run(name, func(t *testing.T) {
			got := parse(t, tt.document, policy.Identity).Evaluate(policy.Request{Action: tt.action, Resource: tt.resource})
			if got != tt.want {
				t.Errorf("verdict %d, want %d", got, tt.want)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	context := map[string]string{
		"acs:SourceIp": "192.0.2.7", "acs:CurrentTime": "2026-05-01T10:00:00Z", "acs:SecureTransport": "false", "kms:tag/env": "Prod",
	}
	for condition, want := range map[string]struct{ allow, deny bool }{
		`{"IpAddress":{"acs:SourceIp":["198.51.100.0/24","192.0.2.0/24"]}}`:                                           {true, true},
		`{"IpAddress":{"acs:SourceIp":"192.0.2.7"}}`:                                                                  {true, true},
		`{"IpAddress":{"acs:SourceIp":"192.0.2.8"}}`:                                                                  {false, false},
		`{"NotIpAddress":{"acs:SourceIp":"192.0.2.0/24"}}`:                                                            {false, false},
		`{"Bool":{"acs:SecureTransport":"true"}}`:                                                                     {false, false},
		`{"Bool":{"acs:SecureTransport":[false]}}`:                                                                    {true, true},
		`{"DateLessThan":{"acs:CurrentTime":"2026-05-01T10:00:01Z"}}`:                                                 {true, true},
		`{"DateLessThan":{"acs:CurrentTime":"2026-05-01T18:00:00+08:00"}}`:                                            {false, false},
		`{"DateGreaterThanEquals":{"acs:CurrentTime":"2026-05-01T10:00Z"}}`:                                           {true, true},
		`{"StringEquals":{"kms:tag/env":"prod"}}`:                                                                     {false, false},
		`{"StringEqualsIgnoreCase":{"kms:tag/env":["test","prod"]}}`:                                                  {true, true},
		`{"StringNotEquals":{"kms:tag/env":["test","Prod"]}}`:                                                         {false, false},
		`{"StringLike":{"kms:tag/env":"P*d"}}`:                                                                        {true, true},
		`{"StringEquals":{"kms:tag/team":"x"}}`:                                                                       {false, false}, // no such tag
		`{"StringNotEquals":{"kms:tag/team":"x"}}`:                                                                    {true, true},
		`{"StringEquals":{"acs:SourceVpc":"vpc-1"}}`:                                                                  {false, false},
		`{"Bool":{"acs:SecureTransport":"false"},"IpAddress":{"acs:SourceIp":"192.0.2.8"}}`:                           {false, false},
		`{"Bool":{"acs:MFAPresent":"true"}}`:                                                                          {false, true}, // not judged
		`{"StringNotEquals":{"acs:Unheard":"x"}}`:                                                                     {false, true},
		`{"NumericLessThan":{"acs:CurrentTime":"5"}}`:                                                                 {false, true},
		`{"IpAddress":{"acs:SourceIp":"not an address"}}`:                                                             {false, true},
		`{"DateLessThan":{"acs:CurrentTime":"tomorrow"}}`:                                                             {false, true},
		`{"Bool":{"acs:SecureTransport":"maybe"}}`:                                                                    {false, true},
		`{"IpAddress":{"acs:SourceIp":"192.0.2.7","acs:Unheard":"192.0.2.7"},"Bool":{"acs:SecureTransport":"false"}}`: {false, true},
	} {
		for effect, applies := range map[string]bool{"Allow": want.allow, "Deny": want.deny} {
			d := parse(t, statements(`{"Effect":"`+effect+`","Action":"kms:*","Resource":"*","Condition":`+condition+`}`), policy.Identity)
			got := d.Evaluate(policy.Request{Action: "kms:Encrypt", Resource: key1, Context: context})
			if (got != policy.Silent) != applies {
				t.Errorf("%s %s applies: %t, want %t", effect, condition, got != policy.Silent, applies)
			}
		}
	}
}

func TestPrincipals(t *testing.T) {
	const alice, account = "acs:ram::1000000000000001:user/alice", "acs:ram::1000000000000001:*"
	d := parse(t, statements(
		`{"Sid":"kms default key policy","Effect":"Allow","Principal":{"RAM":["`+account+`"]},"Action":["kms:*"],"Resource":["*"]}`,
		`{"Effect":"Allow","Principal":{"RAM":"`+alice+`"},"Action":"kms:Encrypt","Resource":"*"}`), policy.Key)
	for _, tt := range []struct {
		name, action string
		want         policy.Verdict
	}{
		{alice, "kms:Encrypt", policy.Allowed},
		{alice, "kms:Decrypt", policy.Silent},
		{"acs:ram::1000000000000001:user/bob", "kms:Encrypt", policy.Silent},
		{account, "kms:Decrypt", policy.Allowed},
	} {
		r := policy.Request{Action: tt.action, Resource: key1, Principals: map[string][]string{"RAM": {tt.name}}}
		if got := d.Evaluate(r); got != tt.want {
			t.Errorf("%s %s: verdict %d, want %d", tt.name, tt.action, got, tt.want)
		}
	}
	trust := parse(t, statements(`{"Effect":"Allow","Principal":{"Service":["ecs.aliyuncs.com"]},"Action":"sts:AssumeRole"}`), policy.Trust)
	for kind, want := range map[string]policy.Verdict{"Service": policy.Allowed, "RAM": policy.Silent} {
		r := policy.Request{Action: "sts:AssumeRole", Principals: map[string][]string{kind: {"ecs.aliyuncs.com"}}}
		if got := trust.Evaluate(r); got != want {
			t.Errorf("%s: verdict %d, want %d", kind, got, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := `{"Effect":"Allow","Action":"kms:*","Resource":"*"}`
	for text, kind := range map[string]policy.Kind{
		`null`:                           policy.Identity,
		`{"Version":"1"}`:                policy.Identity,
		`{"Version":"1","Statement":[]}`: policy.Identity,
		`{"Version":"2","Statement":[` + good + `]}`: policy.Identity,
		statements(good) + `{}`:                      policy.Identity,
		statements(good):                             policy.Key,
		statements(good) + ` `:                       policy.Trust,
		statements(`{"Effect":"allow","Action":"kms:*","Resource":"*"}`):                                                    policy.Identity,
		statements(`{"Effect":"Allow","Resource":"*"}`):                                                                     policy.Identity,
		statements(`{"Effect":"Allow","Action":"kms:*"}`):                                                                   policy.Identity,
		statements(`{"Effect":"Allow","Action":"Encrypt","Resource":"*"}`):                                                  policy.Identity,
		statements(`{"Effect":"Allow","Action":[1],"Resource":"*"}`):                                                        policy.Identity,
		statements(`{"Effect":"Allow","NotAction":"kms:*","Resource":"*"}`):                                                 policy.Identity,
		statements(`{"Effect":"Allow","Action":"kms:*","Resource":"*","Principal":{"RAM":"x"}}`):                            policy.Identity,
		statements(`{"Effect":"Allow","Action":"kms:*","Resource":"*","Condition":{"StringSounds":{"acs:SourceVpc":"x"}}}`): policy.Identity,
		statements(`{"Effect":"Allow","Action":"kms:*","Resource":"` + key1 + `","Principal":{"RAM":"x"}}`):                 policy.Key,
		statements(`{"Effect":"Allow","Action":"*","Resource":"*","Principal":{"RAM":"x"}}`):                                policy.Key,
		statements(`{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*","Principal":{"RAM":"x"}}`):                   policy.Trust,
		statements(`{"Effect":"Allow","Action":"sts:AssumeRole"}`):                                                          policy.Trust,
	} {
		if _, err := policy.Parse(text, kind); err == nil {
			t.Errorf("kind %d takes %s", kind, text)
		}
	}
}

func TestCombine(t *testing.T) {
	for _, tt := range []struct {
		verdicts []policy.Verdict
		want     policy.Verdict
	}{
		{nil, policy.Silent},
		{[]policy.Verdict{policy.Silent, policy.Allowed}, policy.Allowed},
		{[]policy.Verdict{policy.Allowed, policy.Denied, policy.Silent}, policy.Denied},
	} {
		if got := policy.Combine(tt.verdicts...); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.verdicts, got, tt.want)
		}
	}
}

// FuzzParse reads anything without harm, and what it takes it can evaluate.
func FuzzParse(f *testing.F) {
	f.Add(statements(`{"Effect":"Allow","Action":["kms:*"],"Resource":"*","Condition":{"Bool":{"acs:SecureTransport":true}}}`), "kms:Encrypt")
	f.Add(statements(`{"Effect":"Deny","Principal":{"RAM":"*"},"Action":"k*s:*?","Resource":["*"]}`), "kms:Decrypt")
	f.Fuzz(func(t *testing.T, text, action string) {
		for _, kind := range []policy.Kind{policy.Identity, policy.Trust, policy.Key} {
			d, err := policy.Parse(text, kind)
			if err != nil {
				continue
			}
			if v := d.Evaluate(policy.Request{Action: action, Resource: key1}); v > policy.Denied {
				t.Errorf("verdict %d", v)
			}
		}
	})
}
