package emulator

import "strings"

// absent are the actions that the service has and this emulator has not. They
// are answered as the service answers what an account does not support; an action
// in neither table does not exist.
var absent = strings.Fields(`
	AdvanceEncrypt
	AsymmetricEncrypt AsymmetricDecrypt AsymmetricSign AsymmetricVerify GetPublicKey

	CreateSecret DeleteSecret DescribeSecret UpdateSecret ListSecrets ListSecretVersionIds PutSecretValue
	GetSecretValue RestoreSecret RotateSecret UpdateSecretVersionStage UpdateSecretRotationPolicy
	GetRandomPassword GetSecretPolicy SetSecretPolicy

	CreateCertificate UploadCertificate DeleteCertificate DescribeCertificate GetCertificate
	UpdateCertificateStatus CertificatePrivateKeySign CertificatePublicKeyVerify
	CertificatePublicKeyEncrypt CertificatePrivateKeyDecrypt

	ConnectKmsInstance GetKmsInstance ListKmsInstances UpdateKmsInstanceBindVpc GetDefaultKmsInstance
	GetKmsInstanceQuotaInfos ReleaseKmsInstance

	CreateApplicationAccessPoint DeleteApplicationAccessPoint DescribeApplicationAccessPoint
	UpdateApplicationAccessPoint ListApplicationAccessPoints
	CreateClientKey DeleteClientKey GetClientKey ListClientKeys
	CreateNetworkRule DeleteNetworkRule DescribeNetworkRule UpdateNetworkRule ListNetworkRules
	CreatePolicy DeletePolicy DescribePolicy UpdatePolicy ListPolicies
`)
