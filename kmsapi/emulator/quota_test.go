package emulator_test

import (
	"testing"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator"
)

func TestQuotas(t *testing.T) {
	f := start(t, emulator.Config{Quota: true})
	for action, limit := range map[string]int{"DescribeRegions": 50, "DescribeAccountKmsStatus": 1, "CreateKey": 10, "DeleteAlias": 30} {
		p := params{}
		if action == "DeleteAlias" {
			p["AliasName"] = "alias/none"
		}
		for range limit {
			if a := f.call(action, p); a.code() == "Rejected.Throttling" {
				t.Fatalf("%s is throttled below %d per second", action, limit)
			}
		}
		if a := f.refused(429, "Rejected.Throttling", action, p); a.text("Message") != "QPS Limit Exceeded" {
			t.Errorf("message %q", a.text("Message"))
		}
	}
	// Classes and regions have quotas of their own, and time fills them again.
	f.refused(404, "Forbidden.KeyNotFound", "Encrypt", params{"KeyId": "none", "Plaintext": "eA=="})
	r := f.request("DescribeRegions", params{"RegionId": "cn-shanghai"})
	f.sign(r, time.Now())
	if a := f.send(r); a.status != 200 {
		t.Errorf("another region answered %v", a.body)
	}
	f.clock.advance(time.Second)
	f.ok("DescribeRegions", nil)
}

func TestNumberOfKeys(t *testing.T) {
	f := start(t, emulator.Config{Quota: true, MaxKeys: 2})
	f.newKey("EXTERNAL")
	id := f.newKey("EXTERNAL")
	f.refused(400, "Rejected.LimitExceeded", "CreateKey", nil)
	f.ok("ScheduleKeyDeletion", params{"KeyId": id, "PendingWindowInDays": "7"})
	f.refused(400, "Rejected.LimitExceeded", "CreateKey", nil)
	f.clock.advance(7 * 24 * time.Hour)
	f.newKey("EXTERNAL")
}
