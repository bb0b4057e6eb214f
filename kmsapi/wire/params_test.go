package wire

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParams(t *testing.T) {
	p := Params{
		"n": "5", "word": "x", "yes": "True", "data": "AP8=", "lines": "AP8=\n", "loose": "AP9=", "PageNumber": "2", "PageSize": "3",
		"context": `{"a":"1"}`, "numbers": `{"a":1}`, "KeySpec": "AES_128",
	}
	page := Page{PageNumber: 2, PageSize: 3}
	tests := map[string]struct {
		read func(Params) (any, error)
		want any // nil for a refusal
	}{
		"integer":            {func(p Params) (any, error) { return p.Integer("n", 1, 0, 9) }, 5},
		"absent integer":     {func(p Params) (any, error) { return p.Integer("none", 1, 0, 9) }, 1},
		"integer too large":  {func(p Params) (any, error) { return p.Integer("n", 1, 0, 4) }, nil},
		"no integer":         {func(p Params) (any, error) { return p.Integer("word", 1, 0, 9) }, nil},
		"one of":             {func(p Params) (any, error) { return p.OneOf("word", "y", "x") }, "x"},
		"absent one of":      {func(p Params) (any, error) { return p.OneOf("none", "y", "x") }, "y"},
		"none of":            {func(p Params) (any, error) { return p.OneOf("n", "y", "x") }, nil},
		"boolean":            {func(p Params) (any, error) { return p.Boolean("yes") }, true},
		"absent boolean":     {func(p Params) (any, error) { return p.Boolean("none") }, false},
		"no boolean":         {func(p Params) (any, error) { return p.Boolean("word") }, nil},
		"base64":             {func(p Params) (any, error) { return p.Binary("data") }, []byte{0, 255}},
		"base64 with a line": {func(p Params) (any, error) { return p.Binary("lines") }, nil},
		"base64 and bits":    {func(p Params) (any, error) { return p.Binary("loose") }, nil},
		"page":               {func(p Params) (any, error) { return p.Page(1, 100) }, page},
		"page too large":     {func(p Params) (any, error) { return p.Page(1, 2) }, nil},
		"context":            {func(p Params) (any, error) { return p.Context("context") }, map[string]string{"a": "1"}},
		"absent context":     {func(p Params) (any, error) { return p.Context("none") }, map[string]string(nil)},
		"context of numbers": {func(p Params) (any, error) { return p.Context("numbers") }, nil},
		"data key":           {func(p Params) (any, error) { return p.DataKeySize() }, 16},
	}
	for name, test := range tests {
		got, err := test.read(p)
		if refused, ok := errors.AsType[*Error](err); ok && refused.Code == "InvalidParameter" {
			got = nil
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestCut(t *testing.T) {
	all := []int{1, 2, 3, 4, 5}
	for number, want := range map[int][]int{1: {1, 2}, 3: {5}, 4: {}} {
		p := Page{PageNumber: number, PageSize: 2}
		if got := Cut(&p, all); !reflect.DeepEqual(got, want) || p.TotalCount != 5 {
			t.Errorf("page %d is %v of %d", number, got, p.TotalCount)
		}
	}
}

func TestTime(t *testing.T) {
	if got := Time(time.Unix(0, 0)) + Time(time.Time{}); got != "1970-01-01T00:00:00Z" {
		t.Error(got)
	}
}

// TestLowerLimit: a server that takes less than the service has it said in the
// service's way, and so is a request that it did not read.
func TestLowerLimit(t *testing.T) {
	hr := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("Action=Encrypt&Version=2016-01-20"))
	hr.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	hr.Body = http.MaxBytesReader(w, hr.Body, 10)
	if _, err := Parse(hr); !errors.Is(err, errTooLarge) {
		t.Errorf("a body over the server's limit: %v", err)
	}
	if err := Refuse(w, hr, ErrThrottled); err != nil || w.Code != http.StatusTooManyRequests || w.Header().Get("X-Acs-Request-Id") == "" {
		t.Errorf("%v: %d %s", err, w.Code, w.Body)
	}
}
