package audit

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzEncode holds what is written against encoding/json.
func FuzzEncode(f *testing.F) {
	f.Add("encrypt", "done", "payments", "payments.service", "app", "region", "cn-hangzhou", uint32(1000), int32(7))
	f.Add("decrypt", "denied", "", `escaped\x2dname.service`, "", "message_id", `"<&>"`, uint32(0), int32(-1))
	f.Add("\x00", "\xff", "ключ", "a\tb", "…", "é", "\u2028", uint32(1)<<31, int32(1)<<30)
	f.Add(strings.Repeat("x", maxValue+1), "", "", "", "", "a", strings.Repeat("ü", maxValue), uint32(0), int32(0))
	f.Fuzz(func(t *testing.T, action, outcome, key, unit, app, detail, value string, id uint32, pid int32) {
		for _, event := range []Event{
			{Action: action, Outcome: Outcome(outcome), Key: key},
			{Action: action, Outcome: Outcome(outcome), Key: key, Caller: &Caller{UID: id, GID: id, PID: pid, Unit: unit}, Door: unit, Reason: app},
			{Action: action, Caller: &Caller{App: app, UID: id}, KeyID: key, Backend: unit, RequestID: value, Details: map[string]string{detail: value, "b": key, "c": unit}},
		} {
			got := appendEvent(nil, &event)
			for name, value := range event.Details {
				event.Details[name] = bounded(value)
			}
			if want, err := marshal(event); err != nil || !bytes.Equal(got, want) {
				t.Errorf("got  %s\nwant %s, %v", got, want, err)
			}
		}
	})
}

func TestIsDetail(t *testing.T) {
	for key, want := range map[string]bool{
		"message_id": true, "a": true, "_9": true, strings.Repeat("a", 64): true,
		"": false, strings.Repeat("a", 65): false, "Message": false, "a-b": false, "a b": false, "é": false, "a\x00": false,
	} {
		if isDetail(key) != want {
			t.Errorf("%q: %t", key, !want)
		}
	}
}
