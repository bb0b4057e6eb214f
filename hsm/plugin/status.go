package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kmsbroker/kmsbroker/hsm"
)

// Names in ErrorInfo.Metadata.
const (
	metadataCode   = "code"
	metadataDetail = "detail"
)

// Bounds of what an error may bring into the daemon, in bytes.
const (
	maxCode   = 64
	maxDetail = 1024
)

// toStatus is how an error of the token travels.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*hsm.Error](err)
	switch {
	case ok:
	case errors.Is(err, context.DeadlineExceeded):
		e = hsm.Errorf(hsm.Timeout, "%v", err)
	default:
		e = hsm.Errorf(hsm.Internal, "%v", err)
	}
	info := &errdetails.ErrorInfo{
		Reason: string(e.Reason), Domain: errorDomain,
		Metadata: map[string]string{metadataDetail: text(e.Detail, maxDetail)},
	}
	if e.Code != "" {
		info.Metadata[metadataCode] = text(e.Code, maxCode)
	}
	st, detailErr := status.New(codes.FailedPrecondition, text(e.Error(), maxDetail)).WithDetails(info)
	if detailErr != nil {
		return status.Error(codes.Internal, detailErr.Error())
	}
	return st.Err()
}

// fromStatus reads the error of a call that the plugin answered or failed to
// answer. what names the call.
func fromStatus(what string, err error) error {
	st, _ := status.FromError(err)
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == errorDomain {
			return fromErrorInfo(info)
		}
	}
	said := text(st.Message(), maxDetail)
	switch st.Code() {
	case codes.DeadlineExceeded:
		return hsm.Errorf(hsm.Timeout, "%s: the plugin did not answer in time", what)
	case codes.Unavailable, codes.Canceled:
		return hsm.Errorf(hsm.TokenGone, "%s: the plugin process does not answer: %s", what, said)
	case codes.Unimplemented:
		return hsm.Errorf(hsm.NotPermitted, "%s: this plugin cannot do that", what)
	case codes.ResourceExhausted:
		return hsm.Errorf(hsm.Corrupt, "%s: %s", what, said)
	default:
		return hsm.Errorf(hsm.Internal, "%s: the plugin failed: %s: %s", what, st.Code(), said)
	}
}

func fromErrorInfo(info *errdetails.ErrorInfo) *hsm.Error {
	e := &hsm.Error{
		Reason: hsm.Reason(info.GetReason()),
		Code:   text(info.GetMetadata()[metadataCode], maxCode),
		Detail: text(info.GetMetadata()[metadataDetail], maxDetail),
	}
	if !slices.Contains(hsm.Reasons(), e.Reason) {
		e.Detail = fmt.Sprintf("%s (unknown reason %s)", e.Detail, text(info.GetReason(), maxCode))
		e.Reason = hsm.Internal
	}
	return e
}

// text makes foreign words safe to log and to show: valid UTF-8, printable, and
// of at most limit bytes.
func text(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit]
	}
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return s
}
