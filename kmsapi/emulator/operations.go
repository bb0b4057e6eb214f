package emulator

import (
	"errors"
	"strconv"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// operation is one action of the API.
type operation struct {
	run      func(*call) (any, error)
	class    class    // whose quota it counts against
	states   rule     // on which keys it works
	required []string // parameters, in the order in which they are missed
}

// operations is the API as far as it is emulated. An action that is not here is
// unknown to the emulator.
var operations = map[string]operation{
	"Encrypt":                         {encrypt, crypto, usable, []string{"KeyId", "Plaintext"}},
	"Decrypt":                         {decrypt, crypto, usable, []string{"CiphertextBlob"}},
	"ReEncrypt":                       {reEncrypt, crypto, usable, []string{"CiphertextBlob", "DestinationKeyId"}},
	"GenerateDataKey":                 {generateDataKey, crypto, usable, []string{"KeyId"}},
	"GenerateDataKeyWithoutPlaintext": {generateDataKeyWithoutPlaintext, crypto, usable, []string{"KeyId"}},

	"CreateKey":             {createKey, keyCreation, readable, nil},
	"DescribeKey":           {describeKey, reads, readable, []string{"KeyId"}},
	"ListKeys":              {listKeys, reads, readable, nil},
	"UpdateKeyDescription":  {updateKeyDescription, writes, editable, []string{"KeyId"}},
	"SetDeletionProtection": {setDeletionProtection, writes, editable, []string{"EnableDeletionProtection"}},
	"EnableKey":             {enableKey, writes, switchable, []string{"KeyId"}},
	"DisableKey":            {disableKey, writes, switchable, []string{"KeyId"}},
	"ScheduleKeyDeletion":   {scheduleKeyDeletion, writes, alterable, []string{"KeyId", "PendingWindowInDays"}},
	"CancelKeyDeletion":     {cancelKeyDeletion, writes, revocable, []string{"KeyId"}},

	"GetParametersForImport": {getParametersForImport, reads, readable, []string{"KeyId", "WrappingAlgorithm", "WrappingKeySpec"}},
	"ImportKeyMaterial":      {importKeyMaterial, writes, alterable, []string{"KeyId", "EncryptedKeyMaterial", "ImportToken"}},
	"DeleteKeyMaterial":      {deleteKeyMaterial, writes, readable, []string{"KeyId"}},

	"ListKeyVersions":      {listKeyVersions, reads, readable, []string{"KeyId"}},
	"DescribeKeyVersion":   {describeKeyVersion, reads, readable, []string{"KeyId", "KeyVersionId"}},
	"CreateKeyVersion":     {createKeyVersion, writes, usable, []string{"KeyId"}},
	"UpdateRotationPolicy": {updateRotationPolicy, writes, usable, []string{"KeyId", "EnableAutomaticRotation"}},

	"CreateAlias":        {createAlias, writes, alterable, []string{"KeyId", "AliasName"}},
	"UpdateAlias":        {updateAlias, writes, editable, []string{"KeyId", "AliasName"}},
	"DeleteAlias":        {deleteAlias, writes, readable, []string{"AliasName"}},
	"ListAliases":        {listAliases, reads, readable, nil},
	"ListAliasesByKeyId": {listAliasesByKeyID, reads, readable, []string{"KeyId"}},

	"TagResource":      {tagResource, writes, editable, []string{"Tags"}},
	"UntagResource":    {untagResource, writes, editable, []string{"TagKeys"}},
	"ListResourceTags": {listResourceTags, tagReads, readable, []string{"KeyId"}},
	"ListTagResources": {listTagResources, reads, readable, []string{"RegionId", "ResourceType"}},

	"DescribeRegions":          {describeRegions, reads, readable, nil},
	"DescribeAccountKmsStatus": {describeAccountKmsStatus, accountStatus, readable, nil},
}

// call is one request on its way through an operation.
type call struct {
	op     operation
	server *Server
	region *region
	params map[string]string
	now    time.Time
}

// do runs the operation. Operations that change keys run one after the other in
// each region; all others run beside them.
func (c *call) do() (any, error) {
	for _, name := range c.op.required {
		if c.params[name] == "" {
			return nil, wire.MissingParameter(name)
		}
	}
	if c.op.class == writes || c.op.class == keyCreation {
		c.region.changing.Lock()
		defer c.region.changing.Unlock()
	}
	return c.op.run(c)
}

// doOrTry is do, except that a cryptographic operation with DryRun always fails:
// with DryRunOperationError where it would have worked.
func (c *call) doOrTry() (any, error) {
	if c.op.class != crypto || c.params["DryRun"] == "" {
		return c.do()
	}
	dry, err := strconv.ParseBool(c.params["DryRun"])
	if err != nil {
		return nil, wire.InvalidParameter("DryRun")
	}
	result, err := c.do()
	if !dry {
		return result, err
	}
	if err == nil {
		return nil, errDryRun
	}
	if e, ok := errors.AsType[*wire.Error](err); ok && (e.Code == "MissingParameter" || e.Code == "InvalidParameter") {
		return nil, &wire.Error{Status: e.Status, Code: "ValidationError", Message: e.Message}
	}
	return nil, err
}
