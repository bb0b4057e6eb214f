package emulator

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// class is a group of operations that share a quota.
type class int

const (
	crypto class = iota
	reads
	writes
	keyCreation
	tagReads
	accountStatus
)

// perSecond is the documentation's "Performance data for KMS": requests per
// second of one account in one region.
var perSecond = map[class]int{
	crypto:        1000,
	reads:         50,
	writes:        30,
	keyCreation:   10,
	tagReads:      300, // ListResourceTags
	accountStatus: 1,   // DescribeAccountKmsStatus
}

// defaultMaxKeys is the number of keys of one account in one region, from KMS
// 1.0; later versions sell keys by the instance.
const defaultMaxKeys = 200

// quota is the quotas of one region. Its nil value has none.
type quota map[class]*rate.Limiter

// newQuota allows bursts of one second's worth.
func newQuota() quota {
	q := quota{}
	for class, n := range perSecond {
		q[class] = rate.NewLimiter(rate.Limit(n), n)
	}
	return q
}

// take uses up one request, or fails when there is none left.
func (q quota) take(c class, now time.Time) error {
	if q == nil || q[c].AllowN(now, 1) {
		return nil
	}
	return wire.ErrThrottled
}
