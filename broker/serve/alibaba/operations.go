package alibaba

import (
	"context"

	"github.com/kmsbroker/kmsbroker/broker"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// operation is one action of the API.
type operation struct {
	run      func(context.Context, *call) (result, error)
	required []string // parameters, in the order in which they are missed
	// unsupported are parameters that would make something else of it.
	unsupported []string
}

// operations is the API as far as the broker has it: the use of keys. What
// administers keys is done with kmsbrokerctl.
var operations = map[string]operation{
	"Encrypt": {encrypt, []string{"KeyId", "Plaintext"}, nil},
	"Decrypt": {decrypt, []string{"CiphertextBlob"}, []string{"Recipient"}},
	"ReEncrypt": {
		reEncrypt, []string{"CiphertextBlob", "DestinationKeyId"},
		[]string{"SourceKeyId", "SourceKeyVersionId", "SourceEncryptionAlgorithm"}, // of asymmetric keys
	},
	"GenerateDataKey":                 {generate(true), []string{"KeyId"}, []string{"Recipient"}},
	"GenerateDataKeyWithoutPlaintext": {generate(false), []string{"KeyId"}, nil},

	"DescribeKey":        {describeKey, []string{"KeyId"}, nil},
	"ListKeys":           {listKeys, nil, []string{"Filters"}},
	"ListAliases":        {listAliases, nil, nil},
	"ListAliasesByKeyId": {listAliasesOfKey, []string{"KeyId"}, nil},
}

// operationName is the name of an operation, never other text of a caller.
func operationName(r *wire.Request) string {
	if _, ok := operations[r.Action]; ok {
		return r.Action
	}
	return "unknown"
}

// call is one request on its way through an operation.
type call struct {
	core   *broker.Broker
	from   broker.Call
	region string // that the client is in, "" if it does not say
	params wire.Params
}
