// Signs the fast calls with the client's own credentials and clock. The lean signature is trusted only while it
// agrees with the SDK's own: the first request with each new credentials is signed both ways.
import type { SQSClient } from "@aws-sdk/client-sqs";
import { type Credentials, makeSigner, type Signable, type Signature } from "./signature.ts";

/** A request's headers, with those that sign it. */
export type Signer = (request: Signable) => Promise<Readonly<Record<string, string>>>;

type SdkSigner = {
  readonly sign: (
    request: object,
    options: { readonly signingDate: Date },
  ) => Promise<{ readonly headers: Record<string, string> }>;
};

/** Where the two ways differ, it signs the SDK's way from then on. */
export async function makeCheckedSigner({ config }: SQSClient): Promise<Signer> {
  const region = await config.region();
  const sdk = (await config.signer()) as SdkSigner;
  let known: Credentials | null = null;
  let lean: Signature | null = null;
  return async (request) => {
    const date = new Date(Date.now() + config.systemClockOffset);
    const credentials = (await config.credentials()) as Credentials;
    const isKnown = known !== null && isSame(known, credentials);
    if (isKnown && lean !== null) return lean(request, date);
    const signed = await sdk.sign({ method: "POST", query: {}, ...request }, { signingDate: date });
    if (!isKnown) {
      const candidate = makeSigner(credentials, region);
      const agrees = candidate(request, date).authorization === signed.headers.authorization;
      [known, lean] = [credentials, agrees ? candidate : null];
    }
    return signed.headers;
  };
}

const isSame = (one: Credentials, other: Credentials): boolean =>
  one.accessKeyId === other.accessKeyId &&
  one.secretAccessKey === other.secretAccessKey &&
  one.sessionToken === other.sessionToken;
