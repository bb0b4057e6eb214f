// Package expiry reads when key material shall expire, as administrators write
// it. The CLI checks it and the broker remembers it, so both read it here.
package expiry

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Never is how to write that material does not expire.
const Never = "never"

const maxDays = 36500

// Parse reads "never", a number of days from now such as "90d", or an RFC 3339
// time. The zero time means never; others are whole seconds in UTC, as KMS counts.
func Parse(text string, now time.Time) (time.Time, error) {
	if text == Never {
		return time.Time{}, nil
	}
	if number, ok := strings.CutSuffix(text, "d"); ok {
		if days, err := strconv.Atoi(number); err == nil && days > 0 && days <= maxDays {
			return now.UTC().AddDate(0, 0, days).Truncate(time.Second), nil
		}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("expiry %.40q is not never, a number of days such as 90d, or an RFC 3339 time such as 2030-01-31T00:00:00Z", text)
	}
	return t.UTC().Truncate(time.Second), nil
}
