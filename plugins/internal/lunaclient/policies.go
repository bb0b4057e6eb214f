package lunaclient

import "fmt"

// Numbers of the policies that decide about FIPS mode.
const (
	hsmPolicyNonFIPS = 12
	policyNonFIPS    = 43
)

// policyName returns what a partition policy is called in Thales' documentation
// (Luna 7, "Partition Capabilities and Policies"), for those that a person who
// imports keys may want to know.
func policyName(number int) string {
	if name, ok := policyNames[number]; ok {
		return name
	}
	return fmt.Sprintf("partition policy %d", number)
}

var policyNames = map[int]string{
	0:             "private key cloning",
	1:             "private key wrapping",
	2:             "private key unwrapping",
	3:             "private key masking",
	4:             "secret key cloning",
	5:             "secret key wrapping",
	6:             "secret key unwrapping",
	7:             "secret key masking",
	10:            "multipurpose keys",
	11:            "changing key attributes",
	15:            "ignore failed challenge responses",
	16:            "operation without RSA blinding",
	17:            "signing with non-local keys",
	18:            "raw RSA operations",
	20:            "maximum failed user logins",
	21:            "high availability recovery",
	22:            "activation",
	23:            "auto-activation",
	25:            "minimum PIN length",
	26:            "maximum PIN length",
	28:            "key management functions",
	29:            "RSA signing without confirmation",
	31:            "private key unmasking",
	32:            "secret key unmasking",
	33:            "RSA PKCS mechanism",
	34:            "CBC-PAD wrapping and unwrapping of keys of any size",
	37:            "secure trusted channel",
	39:            "start and end dates",
	40:            "per-key authorization",
	policyNonFIPS: "non-FIPS algorithms",
	45:            "prehash verification",
}
