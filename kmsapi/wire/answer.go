package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// WriteResult answers with the result of an operation, a value that marshals to
// a JSON object, or nil for an operation that returns nothing but its
// RequestId.
func WriteResult(w http.ResponseWriter, r *Request, result any) error {
	id, err := json.Marshal(r.ID)
	if err != nil {
		return fmt.Errorf("encode request id: %w", err)
	}
	body := append([]byte(`{"RequestId":`), id...)
	if result != nil {
		fields, err := json.Marshal(result)
		if err != nil {
			return fmt.Errorf("encode result of %s: %w", r.Action, err)
		}
		if len(fields) > len("{}") {
			body = append(append(body, ','), fields[1:len(fields)-1]...)
		}
	}
	return write(w, r, http.StatusOK, append(body, '}'))
}

// refusal is the body of an error. All values are strings: the v1 SDK panics on a
// Code of another type. It joins the body that the KMS documentation shows and
// the one that the gateway sends, except the number HttpStatus, which is
// optional.
type refusal struct {
	RequestID string `json:"RequestId"`
	HostID    string `json:"HostId"`
	Code      string `json:"Code"`
	Message   string `json:"Message"`
	Recommend string `json:"Recommend"`
}

// WriteError answers with a refusal. An error that is no [*Error] becomes
// [ErrInternal], so that nothing of it reaches the client.
func WriteError(w http.ResponseWriter, r *Request, err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = ErrInternal
	}
	help := url.Values{"q": {e.Code}, "product": {"Kms"}, "requestId": {r.ID}}
	body, err := json.Marshal(refusal{
		RequestID: r.ID,
		HostID:    r.Host,
		Code:      e.Code,
		Message:   e.Message,
		Recommend: "https://api.aliyun.com/troubleshoot?" + help.Encode(),
	})
	if err != nil {
		return fmt.Errorf("encode refusal: %w", err)
	}
	return write(w, r, e.Status, body)
}

// Refuse answers a request that nobody has read.
func Refuse(w http.ResponseWriter, hr *http.Request, err error) error {
	return WriteError(w, newRequest(hr), err)
}

func write(w http.ResponseWriter, r *Request, status int, body []byte) error {
	w.Header().Set("Content-Type", "application/json;charset=utf-8")
	w.Header().Set("X-Acs-Request-Id", r.ID)
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("send answer: %w", err)
	}
	return nil
}
