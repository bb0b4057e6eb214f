package main

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/kmsbroker/kmsbroker/api/kmsbroker/v1"
)

func TestExpiryRows(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	expiry := func(left, ahead time.Duration, renewed time.Time, failure string) *v1.StatusResponse_Expiry {
		e := &v1.StatusResponse_Expiry{Key: "k", Region: "r", KeyId: "id", ExpiresAt: timestamppb.New(now.Add(left)), RenewalError: failure}
		if ahead > 0 {
			e.RenewAhead = durationpb.New(ahead)
		}
		if !renewed.IsZero() {
			e.RenewedAt = timestamppb.New(renewed)
		}
		return e
	}
	var never time.Time
	for _, tt := range []struct {
		name          string
		expiry        *v1.StatusResponse_Expiry
		days, renewal string // empty: not shown
	}{
		{"nobody renews it", expiry(30*day, 0, never, ""), "30", "none: kmsbrokerctl key reimport k"},
		{"later", expiry(30*day+time.Second, 0, never, ""), "", ""},
		{"expired", expiry(-time.Hour, 0, never, ""), "-1", "none: kmsbrokerctl key reimport k"},
		{"will be renewed", expiry(20*day, 14*day, never, ""), "20", "due 2026-06-07 12:00:00Z"},
		{"was renewed", expiry(20*day, 14*day, now.Add(-time.Hour), ""), "20", "done 2026-06-01 11:00:00Z"},
		{"could not be renewed", expiry(13*day, 14*day, now, "no HSM"), "13", "failed 2026-06-01 12:00:00Z: no HSM"},
		{"could not be renewed far ahead", expiry(50*day, 60*day, now, "no HSM"), "50", "failed 2026-06-01 12:00:00Z: no HSM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows := expiryRows([]*v1.StatusResponse_Expiry{tt.expiry}, now)[1:]
			if tt.days == "" {
				if len(rows) != 0 {
					t.Errorf("shown: %q", rows)
				}
				return
			}
			if len(rows) != 1 || rows[0][4] != tt.days || rows[0][5] != tt.renewal {
				t.Errorf("got %q, want %s days and %q", rows, tt.days, tt.renewal)
			}
		})
	}
}

func TestProxyRows(t *testing.T) {
	rows := proxyRows([]*v1.StatusResponse_Proxy{{
		Backend: "hsm", Clients: 1, ClientSessions: 2, Lent: 3, Parked: 4, Idle: 5, Most: 6, Waiting: 7, Late: 8, Lost: 9,
	}})
	if len(rows) != 2 || len(rows[1]) != len(rows[0]) {
		t.Fatalf("rows %q", rows)
	}
	want := map[string]string{"PKCS#11": "hsm", "CLIENTS": "1", "THEIR SESSIONS": "2", "SESSIONS": "12 of 6", "LENT": "3",
		"PARKED": "4", "WAITING": "7", "LATE": "8", "LOST": "9"}
	for i, column := range rows[0] {
		if rows[1][i] != want[column] {
			t.Errorf("%s is %q, want %q", column, rows[1][i], want[column])
		}
	}
}
