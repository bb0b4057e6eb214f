//go:build root

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/auth/credentials"
	sdkerrors "github.com/aliyun/alibaba-cloud-sdk-go/sdk/errors"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"

	"github.com/kmsbroker/kmsbroker/kmsapi"
)

// alibaba is Alibaba Cloud's protocol, on alibaba.sock or over TCP.
type alibaba struct {
	ask func(ctx context.Context, action string, parameters url.Values) (*answer, error)
}

type answer struct {
	Code, Message             string
	CiphertextBlob, Plaintext string
}

const alibabaDoor = "alibaba"

// onSocket signs nothing.
func onSocket() alibaba {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", "/run/kmsbroker/alibaba.sock")
	}}}
	return alibaba{func(_ context.Context, action string, parameters url.Values) (*answer, error) {
		parameters.Set("Action", action)
		parameters.Set("Version", "2016-01-20")
		resp, err := client.PostForm("http://localhost/", parameters)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		var a answer
		if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
			return nil, err
		}
		if a.Code != "" {
			return nil, &kmsapi.Error{Operation: action, Code: a.Code, Status: resp.StatusCode, Message: a.Message}
		}
		return &a, nil
	}}
}

// overTCP has the official SDK sign.
func overTCP(id, secret string) (alibaba, error) {
	client, err := sdk.NewClientWithOptions("cn-hangzhou", sdk.NewConfig(), credentials.NewAccessKeyCredential(id, secret))
	if err != nil {
		return alibaba{}, err
	}
	return alibaba{func(_ context.Context, action string, parameters url.Values) (*answer, error) {
		req := requests.NewCommonRequest()
		req.Scheme, req.Domain, req.Method, req.Version, req.ApiName = "http", "127.0.0.1:8765", http.MethodPost, "2016-01-20", action
		for name := range parameters {
			req.FormParams[name] = parameters.Get(name)
		}
		resp, err := client.ProcessCommonRequest(req)
		if refused, ok := errors.AsType[*sdkerrors.ServerError](err); ok {
			return nil, &kmsapi.Error{Operation: action, Code: refused.ErrorCode(), Status: refused.HttpStatus(), Message: refused.Message()}
		}
		if err != nil {
			return nil, err
		}
		var a answer
		return &a, json.Unmarshal(resp.GetHttpContentBytes(), &a)
	}}, nil
}

func (a alibaba) ways(op string) []way {
	return map[string][]way{
		"encrypt":                             {{alibabaDoor, "Encrypt", a.onKey("Encrypt")}},
		"decrypt":                             {{alibabaDoor, "Decrypt", a.decrypt}},
		"generate-data-key":                   {{alibabaDoor, "GenerateDataKey", a.onKey("GenerateDataKey")}},
		"generate-data-key-without-plaintext": {{alibabaDoor, "GenerateDataKeyWithoutPlaintext", a.onKey("GenerateDataKeyWithoutPlaintext")}},
		"steal": {
			{alibabaDoor, "Decrypt", a.stealing(nil)}, {alibabaDoor, "Decrypt, reserved context", a.stealing(reserved)},
			{alibabaDoor, "ReEncrypt", a.moving(nil)}, {alibabaDoor, "ReEncrypt, reserved context", a.moving(reserved)},
		},
	}[op]
}

func inContext(parameters url.Values, name string, context map[string]string) (url.Values, error) {
	if len(context) == 0 {
		return parameters, nil
	}
	text, err := json.Marshal(context)
	parameters.Set(name, string(text))
	return parameters, err
}

// onKey does what takes a key; those that need no plaintext ignore it.
func (a alibaba) onKey(action string) func(context.Context, *task) error {
	return func(ctx context.Context, t *task) error {
		parameters, err := inContext(url.Values{"KeyId": {t.Key}}, "EncryptionContext", t.Context)
		if err != nil {
			return err
		}
		if action == "Encrypt" {
			parameters.Set("Plaintext", base64.StdEncoding.EncodeToString(plaintext))
		}
		_, err = a.ask(ctx, action, parameters)
		return err
	}
}

func (a alibaba) decrypt(ctx context.Context, t *task) error {
	parameters, err := inContext(url.Values{"CiphertextBlob": {t.Sealed.Blob}}, "EncryptionContext", t.Context)
	if err != nil {
		return err
	}
	opened, err := a.ask(ctx, "Decrypt", parameters)
	if err != nil {
		return err
	}
	return same(base64.StdEncoding.DecodeString(opened.Plaintext))
}

func (a alibaba) stealing(in func(string, *task) map[string]string) func(context.Context, *task) error {
	return eachStolen(in, func(ctx context.Context, _ *task, blob string, context map[string]string) error {
		parameters, err := inContext(url.Values{"CiphertextBlob": {blob}}, "EncryptionContext", context)
		if err != nil {
			return err
		}
		_, err = a.ask(ctx, "Decrypt", parameters)
		return err
	})
}

func (a alibaba) moving(in func(string, *task) map[string]string) func(context.Context, *task) error {
	return eachStolen(in, func(ctx context.Context, t *task, blob string, context map[string]string) error {
		parameters, err := inContext(url.Values{"CiphertextBlob": {blob}, "DestinationKeyId": {t.Key}}, "SourceEncryptionContext", context)
		if err != nil {
			return err
		}
		_, err = a.ask(ctx, "ReEncrypt", parameters)
		return err
	})
}
