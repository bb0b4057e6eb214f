package reliable

import (
	"fmt"
	"strings"
	"time"
)

// ThrottledError says that a call was not sent because its turn would not have
// come before its deadline. It makes [kmsapi.Error.Throttled] true.
type ThrottledError struct {
	Limit string        // "50 key reads a second"
	Wait  time.Duration // until the call's turn, 0 when the deadline passed in line
}

func (e *ThrottledError) Error() string {
	if e.Wait == 0 {
		return fmt.Sprintf("the deadline passed while others had their turn: the limit is %s", e.Limit)
	}
	return fmt.Sprintf("its turn would come after the deadline, in %v: the limit is %s", e.Wait.Round(time.Millisecond), e.Limit)
}

// Throttled implements what [kmsapi.Error.Throttled] looks for.
func (e *ThrottledError) Throttled() bool { return true }

// UnavailableError says that a call was not sent because no endpoint has been
// answering.
type UnavailableError struct {
	Endpoints []EndpointStatus
}

func (e *UnavailableError) Error() string {
	var each []string
	for _, s := range e.Endpoints {
		text := fmt.Sprintf("%s has not answered since %s (%s)", s.Name, s.Since.UTC().Format(time.RFC3339), s.LastError)
		if !s.RetryAt.IsZero() {
			text += ", next attempt at " + s.RetryAt.UTC().Format(time.RFC3339)
		}
		each = append(each, text)
	}
	return "no endpoint is available: " + strings.Join(each, "; ")
}
