package wire

import "testing"

// TestRPCVector is the example of the KMS documentation's page "Signature". The
// page signs twice: its final URL with the string that its rules give, and the
// value in its text with that string as the page shows it, where the "&" between
// the parameters are not escaped. Clients follow the rules; the second value
// still checks the HMAC.
func TestRPCVector(t *testing.T) {
	params := map[string]string{
		"Action": "CreateKey", "SignatureVersion": "1.0", "Format": "json", "Version": "2016-01-20",
		"AccessKeyId": "testid", "SignatureMethod": "HMAC-SHA1", "Timestamp": "2016-03-28T03:13:08Z",
		"Signature": "is not signed",
	}
	const secret, want = "testsecret", "41wk2SSX1GJh7fwnc5eqOfiJPFg="
	if got := rpcSignature(secret, rpcStringToSign("GET", params)); got != want {
		t.Errorf("signature = %s, want %s", got, want)
	}
	const shown = "GET&%2F&AccessKeyId%3Dtestid&Action%3DCreateKey&Format%3Djson&SignatureMethod%3DHMAC-SHA1" +
		"&SignatureVersion%3D1.0&Timestamp%3D2016-03-28T03%253A13%253A08Z&Version%3D2016-01-20"
	if got, want := rpcSignature(secret, shown), "s/OdVWMTmNGagvWlljdAJ7Itsew="; got != want {
		t.Errorf("HMAC = %s, want %s", got, want)
	}
}
