import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Provider;
import java.security.Security;
import java.security.Signature;

/**
 * Signs what it reads with a key that is in the HSM: java Sign.java KEY.
 * A key store of this kind shows only keys that have a certificate on the token.
 */
public class Sign {
    public static void main(String[] args) throws Exception {
        // The text stands for a configuration file. It takes the first slot; with more
        // than one token, "slot" or "slotListIndex" chooses.
        Provider provider = Security.getProvider("SunPKCS11").configure("--name = kmsbroker\nlibrary = " + System.getenv("MODULE") + "\n");
        KeyStore keys = KeyStore.getInstance("PKCS11", provider);
        keys.load(null, System.getenv().getOrDefault("PIN", "0000").toCharArray());
        PrivateKey key = (PrivateKey) keys.getKey(args[0], null);
        if (key == null) {
            System.err.println("error: no key " + args[0] + " with a certificate on the token");
            System.exit(1);
        }
        Signature signature = Signature.getInstance("SHA256withRSA", provider);
        signature.initSign(key);
        signature.update(System.in.readAllBytes());
        System.out.write(signature.sign());
        System.out.flush();
    }
}
