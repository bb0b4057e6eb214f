package authz

import (
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// ReasonRate is the reason of a failure for want of what is left of a rate.
const ReasonRate = "GRANT_RATE"

// Rate is how many operations are allowed in a time. As many may come at once;
// what was used comes back evenly. The zero Rate is no limit.
type Rate struct {
	Calls int
	Per   time.Duration
}

var (
	rateText  = regexp.MustCompile(`^([1-9][0-9]{0,6})/([smh])$`)
	rateUnits = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}
)

// ParseRate reads "100/s", "5/m" or "1000/h", up to 9999999 operations in a
// second, minute or hour.
func ParseRate(text string) (Rate, error) {
	match := rateText.FindStringSubmatch(text)
	if match == nil {
		return Rate{}, fmt.Errorf(`%q is not a rate such as "100/s", "5/m" or "1000/h"`, text)
	}
	calls, err := strconv.Atoi(match[1])
	return Rate{Calls: calls, Per: rateUnits[match[2]]}, err
}

// String returns the rate as ParseRate reads it, "" for no limit.
func (r Rate) String() string {
	for unit, per := range rateUnits {
		if r.Calls > 0 && r.Per == per {
			return strconv.Itoa(r.Calls) + "/" + unit
		}
	}
	return ""
}

// maxAccounts bounds the callers of one grant that have a share of their own. An
// account with a range of subordinate uids can be very many callers.
const maxAccounts = 4096

// account keeps what is left of a rate for each caller. Callers beyond maxAccounts
// have one share between them until others have been quiet for long enough.
type account struct {
	rate  Rate
	mu    sync.Mutex
	each  map[Identity]*bucket
	rest  bucket
	swept time.Time
}

// bucket holds the operations that may be done at once. Unlike that of
// golang.org/x/time/rate it takes back what was not used after all.
type bucket struct {
	left float64
	at   time.Time
}

func newAccount(rate Rate) *account {
	return &account{rate: rate, each: map[Identity]*bucket{}, rest: bucket{left: float64(rate.Calls)}}
}

func (a *account) take(who Identity, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.open(who, now)
	a.refill(b, now)
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

func (a *account) give(who Identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, ok := a.each[who]
	if !ok {
		b = &a.rest
	}
	b.left = min(b.left+1, float64(a.rate.Calls))
}

// open returns the bucket of a caller.
func (a *account) open(who Identity, now time.Time) *bucket {
	if b, ok := a.each[who]; ok {
		return b
	}
	if len(a.each) >= maxAccounts {
		a.sweep(now)
	}
	if len(a.each) >= maxAccounts {
		return &a.rest
	}
	b := &bucket{left: float64(a.rate.Calls), at: now}
	a.each[who] = b
	return b
}

// sweep forgets those who have all of their share again. It looks through them
// once a second at the most, because anybody can bring it about.
func (a *account) sweep(now time.Time) {
	if now.Before(a.swept.Add(time.Second)) {
		return
	}
	a.swept = now
	for who, b := range a.each {
		if a.refill(b, now); b.left >= float64(a.rate.Calls) {
			delete(a.each, who)
		}
	}
}

func (a *account) refill(b *bucket, now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.left = min(b.left+float64(a.rate.Calls)*passed.Seconds()/a.rate.Per.Seconds(), float64(a.rate.Calls))
		b.at = now
	}
}
