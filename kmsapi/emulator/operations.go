package emulator

import (
	"errors"
	"strconv"
	"time"

	"github.com/kmsbroker/kmsbroker/kmsapi/emulator/ram"
	"github.com/kmsbroker/kmsbroker/kmsapi/wire"
)

// operation is one action of the API.
type operation struct {
	run      func(*call) (any, error)
	class    class    // whose quota it counts against
	states   rule     // on which keys it works
	on       scope    // what it needs permission for
	required []string // parameters, in the order in which they are missed
}

// operations is the API as far as it is emulated.
var operations = map[string]operation{
	"Encrypt":                         {encrypt, crypto, usable, onKey, []string{"KeyId", "Plaintext"}},
	"Decrypt":                         {decrypt, crypto, usable, onKey, []string{"CiphertextBlob"}},
	"ReEncrypt":                       {reEncrypt, crypto, usable, onKey, []string{"CiphertextBlob", "DestinationKeyId"}},
	"GenerateDataKey":                 {generateDataKey, crypto, usable, onKey, []string{"KeyId"}},
	"GenerateDataKeyWithoutPlaintext": {generateDataKeyWithoutPlaintext, crypto, usable, onKey, []string{"KeyId"}},

	"ExportDataKey":            {exportDataKey, crypto, usable, onKey, []string{"CiphertextBlob", "PublicKeyBlob", "WrappingKeySpec", "WrappingAlgorithm"}},
	"GenerateAndExportDataKey": {generateAndExportDataKey, crypto, usable, onKey, []string{"KeyId", "PublicKeyBlob", "WrappingKeySpec", "WrappingAlgorithm"}},

	"CreateKey":             {createKey, keyCreation, readable, onKeys, nil},
	"DescribeKey":           {describeKey, reads, readable, onKey, []string{"KeyId"}},
	"ListKeys":              {listKeys, reads, readable, onKeys, nil},
	"UpdateKeyDescription":  {updateKeyDescription, writes, editable, onKey, []string{"KeyId"}},
	"SetDeletionProtection": {setDeletionProtection, writes, editable, onKey, []string{"EnableDeletionProtection"}},
	"EnableKey":             {enableKey, writes, switchable, onKey, []string{"KeyId"}},
	"DisableKey":            {disableKey, writes, switchable, onKey, []string{"KeyId"}},
	"ScheduleKeyDeletion":   {scheduleKeyDeletion, writes, alterable, onKey, []string{"KeyId", "PendingWindowInDays"}},
	"CancelKeyDeletion":     {cancelKeyDeletion, writes, revocable, onKey, []string{"KeyId"}},

	"GetKeyPolicy": {getKeyPolicy, reads, readable, onKey, []string{"KeyId"}},
	"SetKeyPolicy": {setKeyPolicy, writes, editable, onKey, []string{"KeyId", "Policy"}},

	"GetParametersForImport": {getParametersForImport, reads, readable, onKey, []string{"KeyId", "WrappingAlgorithm", "WrappingKeySpec"}},
	"ImportKeyMaterial":      {importKeyMaterial, writes, alterable, onKey, []string{"KeyId", "EncryptedKeyMaterial", "ImportToken"}},
	"DeleteKeyMaterial":      {deleteKeyMaterial, writes, readable, onKey, []string{"KeyId"}},

	"ListKeyVersions":      {listKeyVersions, reads, readable, onKey, []string{"KeyId"}},
	"DescribeKeyVersion":   {describeKeyVersion, reads, readable, onKey, []string{"KeyId", "KeyVersionId"}},
	"CreateKeyVersion":     {createKeyVersion, writes, usable, onKey, []string{"KeyId"}},
	"UpdateRotationPolicy": {updateRotationPolicy, writes, usable, onKey, []string{"KeyId", "EnableAutomaticRotation"}},

	"CreateAlias":        {createAlias, writes, alterable, onKey, []string{"KeyId", "AliasName"}},
	"UpdateAlias":        {updateAlias, writes, editable, onKey, []string{"KeyId", "AliasName"}},
	"DeleteAlias":        {deleteAlias, writes, readable, onKey, []string{"AliasName"}},
	"ListAliases":        {listAliases, reads, readable, onAliases, nil},
	"ListAliasesByKeyId": {listAliasesByKeyID, reads, readable, onKey, []string{"KeyId"}},

	"TagResource":      {tagResource, writes, editable, onKey, []string{"Tags"}},
	"UntagResource":    {untagResource, writes, editable, onKey, []string{"TagKeys"}},
	"ListResourceTags": {listResourceTags, tagReads, readable, onKey, []string{"KeyId"}},
	"ListTagResources": {listTagResources, reads, readable, onKey, []string{"RegionId", "ResourceType"}},

	"TagResources":   {tagResources, writes, editable, onKey, []string{"RegionId", "ResourceType", "ResourceId.1", "Tag.1.Key"}},
	"UntagResources": {untagResources, writes, editable, onKey, []string{"RegionId", "ResourceType", "ResourceId.1"}},

	"DescribeRegions":          {describeRegions, reads, readable, onNothing, nil},
	"DescribeAccountKmsStatus": {describeAccountKmsStatus, accountStatus, readable, onAccount, nil},
	"OpenKmsService":           {openKmsService, accountStatus, readable, onAccount, nil},
}

// call is one request on its way through an operation.
type call struct {
	op         operation
	server     *Server
	region     *region
	gateway    string // the KMS instance whose gateway it came through, "" for the shared one
	request    *wire.Request
	who        ram.Identity
	permission string // what the caller needs to be allowed, without "kms:"
	params     wire.Params
	now        time.Time
}

// do runs the operation. Operations that change keys run one after the other in
// each region; all others run beside them.
func (c *call) do() (any, error) {
	for _, name := range c.op.required {
		if c.params[name] == "" {
			return nil, wire.MissingParameter(name)
		}
	}
	if err := c.permitted(); err != nil {
		return nil, err
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
