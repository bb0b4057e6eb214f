// Package pkcs11 tests what applications of PKCS#11 see: the tools that people use,
// and every function, compared with the token's own module and with p11-kit's server.
package pkcs11
