package expiry

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 5, time.UTC)
	tests := []struct {
		in   string
		want time.Time
		bad  bool
	}{
		{in: "never"},
		{in: "90d", want: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)},
		{in: "2030-01-31T00:00:00Z", want: time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)},
		{in: "2030-01-31T01:00:00.9+01:00", want: time.Date(2030, 1, 31, 0, 0, 0, 0, time.UTC)},
		{in: "", bad: true},
		{in: "0d", bad: true},
		{in: "-1d", bad: true},
		{in: "36501d", bad: true},
		{in: "99999999999999999999d", bad: true},
		{in: "2030-01-31", bad: true},
		{in: "Never", bad: true},
	}
	for _, tt := range tests {
		got, err := Parse(tt.in, now)
		if (err != nil) != tt.bad || !got.Equal(tt.want) {
			t.Errorf("Parse(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
}
