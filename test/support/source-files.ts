// Reads TypeScript with the compiler's own parser: what a file imports and exports, which globals it
// touches, and how long its functions are.
import { posix } from "node:path";
import {
  isArrowFunction,
  isBindingElement,
  isCallExpression,
  isClassDeclaration,
  isElementAccessExpression,
  isExportAssignment,
  isExportDeclaration,
  isExternalModuleReference,
  isFunctionDeclaration,
  isFunctionExpression,
  isFunctionLikeDeclaration,
  isIdentifier,
  isImportDeclaration,
  isImportTypeNode,
  isInterfaceDeclaration,
  isLiteralTypeNode,
  isMetaProperty,
  isNamedExports,
  isNewExpression,
  isObjectBindingPattern,
  isPropertyAccessExpression,
  isStringLiteral,
  isTypeAliasDeclaration,
  isTypeReferenceNode,
  isVariableDeclaration,
  type Node,
  SyntaxKind,
} from "typescript/unstable/ast";
import { API } from "typescript/unstable/async";

/** A file's path from the checkout's root → its text. */
export type SourceTexts = Readonly<Record<string, string>>;

export type SourceImport = {
  /** As written; null for an `import(…)` of something that is no literal. */
  readonly specifier: string | null;
  /** The same; a relative one as a path from the root. */
  readonly target: string | null;
  /** Evaluated before the file's first line: neither types alone nor an `import(…)`. */
  readonly isEager: boolean;
  /** `export … from`. */
  readonly isPassedOn: boolean;
};

export type SourceFunction = { readonly name: string; readonly lines: number };

export type Source = {
  readonly path: string;
  readonly lines: number;
  readonly imports: readonly SourceImport[];
  /** Names of the types, interfaces and classes that are declared and exported here. */
  readonly exportedTypes: readonly string[];
  readonly hasDefaultExport: boolean;
  readonly functions: readonly SourceFunction[];
  /** Names and what is read of them, as `process.env.HOME`, `new Date` or `performance`. */
  readonly mentions: readonly string[];
};

type Found = {
  imports: SourceImport[];
  exportedTypes: string[];
  hasDefaultExport: boolean;
  functions: SourceFunction[];
  mentions: string[];
};

/** Only syntax is wanted: neither libraries nor imported files are looked for. */
const COMPILER_OPTIONS = { noLib: true, noResolve: true, types: [], module: "preserve" };

/** State: the compiler's process, and the files that it sees. */
export class SourceReader {
  readonly #files = new Map<string, string>();
  #projects = 0;
  readonly #compiler = new API({
    cwd: "/",
    fs: {
      readFile: (name) => this.#files.get(name) ?? null,
      fileExists: (name) => this.#files.has(name),
      directoryExists: (folder) =>
        [...this.#files.keys()].some((name) => name.startsWith(`${folder}/`)),
      getAccessibleEntries: () => ({ files: [], directories: [] }),
      realpath: (path) => path,
    },
  });

  async read(texts: SourceTexts): Promise<readonly Source[]> {
    const root = `/${++this.#projects}`;
    const config = `${root}/tsconfig.json`;
    const paths = Object.keys(texts);
    this.#files.set(config, JSON.stringify({ compilerOptions: COMPILER_OPTIONS, files: paths }));
    for (const path of paths) this.#files.set(`${root}/${path}`, texts[path]!);
    const snapshot = await this.#compiler.updateSnapshot({ openProjects: [config] });
    const program = snapshot.getProject(config)!.program;
    const sources = paths.map(async (path) => {
      const file = await program.getSourceFile(`${root}/${path}`);
      return describeFile(path, texts[path]!, file!);
    });
    return await Promise.all(sources);
  }

  async close(): Promise<void> {
    await this.#compiler.close();
  }
}

function describeFile(path: string, text: string, file: Node): Source {
  const found: Found = {
    imports: [],
    exportedTypes: [],
    hasDefaultExport: false,
    functions: [],
    mentions: [],
  };
  const visit = (node: Node): void => {
    noteImport(found, path, node);
    noteExport(found, node);
    noteFunction(found, node);
    noteMention(found, node);
    node.forEachChild(visit);
  };
  visit(file);
  return { path, lines: text.trimEnd().split("\n").length, ...found };
}

const children = (node: Node): readonly Node[] => {
  const all: Node[] = [];
  node.forEachChild((child) => {
    all.push(child);
  });
  return all;
};

function noteImport(found: Found, path: string, node: Node): void {
  const note = (literal: Node | undefined, isEager: boolean, isPassedOn = false) => {
    const specifier = literal && isStringLiteral(literal) ? literal.text : null;
    const target = specifier?.startsWith(".")
      ? posix.join(posix.dirname(path), specifier)
      : specifier;
    found.imports.push({ specifier, target, isEager, isPassedOn });
  };
  if (isImportDeclaration(node)) {
    const isType = node.importClause?.phaseModifier === SyntaxKind.TypeKeyword;
    note(node.moduleSpecifier, !isType);
  } else if (isExportDeclaration(node) && node.moduleSpecifier !== undefined) {
    note(node.moduleSpecifier, !node.isTypeOnly, true);
  } else if (isExternalModuleReference(node)) {
    note(node.expression, true);
  } else if (isImportTypeNode(node)) {
    note(isLiteralTypeNode(node.argument) ? node.argument.literal : undefined, false);
  } else if (isCallExpression(node)) {
    const { expression } = node;
    const isRequire = isIdentifier(expression) && expression.text === "require";
    if (expression.kind === SyntaxKind.ImportKeyword) note(node.arguments[0], false);
    else if (isRequire && node.arguments.length === 1) note(node.arguments[0], true);
  }
}

const hasModifier = (node: Node, kind: SyntaxKind): boolean =>
  children(node).some((child) => child.kind === kind);

function noteExport(found: Found, node: Node): void {
  if (isExportAssignment(node)) found.hasDefaultExport = true;
  if (isExportDeclaration(node) && node.exportClause && isNamedExports(node.exportClause)) {
    const names = node.exportClause.elements.map(({ name }) => name.text);
    if (names.includes("default")) found.hasDefaultExport = true;
  }
  const isType = isTypeAliasDeclaration(node) || isInterfaceDeclaration(node);
  const isDeclared = isType || isClassDeclaration(node) || isFunctionDeclaration(node);
  if (!isDeclared || !hasModifier(node, SyntaxKind.ExportKeyword)) return;
  if (hasModifier(node, SyntaxKind.DefaultKeyword)) found.hasDefaultExport = true;
  else if (!isFunctionDeclaration(node) && node.name) found.exportedTypes.push(node.name.text);
}

function noteFunction(found: Found, node: Node): void {
  if (!isFunctionLikeDeclaration(node)) return;
  const lines = node.getText().split("\n").length;
  const isUnnamed = isArrowFunction(node) || isFunctionExpression(node);
  const named = isUnnamed && node.parent && isVariableDeclaration(node.parent) ? node.parent : node;
  const name = "name" in named ? (named.name as Node | undefined) : undefined;
  found.functions.push({ name: name?.getText() ?? "a nameless function", lines });
}

function noteMention(found: Found, node: Node): void {
  const { parent } = node;
  const isPartOfChain = parent !== undefined && chainOf(parent) !== null;
  const chain = isPartOfChain ? null : chainOf(node);
  if (chain === null || isOnlyAName(node)) return;
  // `const { env } = process` reads `process.env`.
  if (parent && isVariableDeclaration(parent) && isObjectBindingPattern(parent.name)) {
    for (const element of children(parent.name)) {
      if (!isBindingElement(element)) continue;
      found.mentions.push(`${chain}.${(element.propertyName ?? element.name)?.getText()}`);
    }
  }
  const isMade = parent && isNewExpression(parent) && parent.expression === node;
  found.mentions.push(isMade ? `new ${chain}` : chain);
}

/** `a.b["c"]` as `a.b.c`; null for anything that does not begin with a name. */
function chainOf(node: Node): string | null {
  if (isIdentifier(node)) return node.text;
  if (isMetaProperty(node)) return "import.meta";
  if (isPropertyAccessExpression(node)) {
    const object = chainOf(node.expression);
    return object === null ? null : `${object}.${node.name.text}`;
  }
  if (isElementAccessExpression(node) && isStringLiteral(node.argumentExpression)) {
    const object = chainOf(node.expression);
    return object === null ? null : `${object}.${node.argumentExpression.text}`;
  }
  return null;
}

/** Names a property, a binding or a type, and reads no global. */
function isOnlyAName(node: Node): boolean {
  const { parent } = node;
  if (parent === undefined || !isIdentifier(node)) return false;
  if (isBindingElement(parent)) return parent.initializer !== node;
  if (isTypeReferenceNode(parent)) return true;
  const isNamed = "name" in parent && parent.name === node;
  return isNamed && parent.kind !== SyntaxKind.ShorthandPropertyAssignment;
}
